// The volume and its masks in NiiVue: three planes and a rendering, for browsers with WebGL2.
"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("viewer-data").textContent);
  const say = (words) => { $("place").textContent = words; };
  if (!document.createElement("canvas").getContext("webgl2")) {
    say("This browser has no WebGL2; report.html shows the same without it.");
    document.body.dataset.ready = "no";
    return;
  }
  const view = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.94, 0.89, 0.26, 0.8],
    dragAndDropEnabled: false,
    isRadiologicalConvention: true,
    isOrientCube: true,
    isRuler: true,
    sagittalNoseLeft: true,
    showAllOrientationMarkers: true,
    logLevel: "silent",
    onLocationChange: (at) => {
      const [x, y, z] = [-at.mm[0], -at.mm[1], at.mm[2]]; // LPS
      say(`LPS ${[x, y, z].map((v) => v.toFixed(1)).join(", ")} mm`);
      document.body.dataset.lps = [x, y, z].map((v) => v.toFixed(2)).join(",");
    },
  });
  await view.attachTo("gl");
  const load = (part) => niivue.NVImage.loadFromBase64(part);
  view.addVolume(await load({
    base64: data.volume, name: "myelogram.nii.gz", colormap: "gray",
    cal_min: data.window[0], cal_max: data.window[1],
  }));
  const masks = await load({ base64: data.labels, name: "masks.nii.gz", opacity: 0.5 });
  masks.setColormapLabel(data.colors);
  view.addVolume(masks);
  const kinds = { planes: view.sliceTypeMultiplanar, rendering: view.sliceTypeRender };
  view.setSliceType(kinds.planes);

  function visit(lps) {
    view.scene.crosshairPos = view.mm2frac([-lps[0], -lps[1], lps[2]], 0, true); // RAS
    view.drawScene();
    view.createOnLocationChange();
  }

  for (const button of document.querySelectorAll("[data-lps]")) {
    if (button === document.body) continue;
    button.addEventListener("click", () => visit(button.dataset.lps.split(",").map(Number)));
  }
  for (const name of Object.keys(kinds)) {
    $(name).addEventListener("click", () => view.setSliceType(kinds[name]));
  }
  $("opacity").addEventListener("input", () => view.setOpacity(1, Number($("opacity").value)));
  visit(data.start);
  document.body.dataset.ready = "yes";
})();
