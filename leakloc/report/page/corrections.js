// Corrections by the reader, collected on the page and downloaded as one file. No server.
"use strict";
(() => {
  const holder = document.getElementById("correct-data");
  const viewer = document.getElementById("viewer");
  if (!holder || !viewer) return;
  const data = JSON.parse(holder.textContent);
  const $ = (id) => document.getElementById(id);
  const marks = [...document.querySelectorAll("[data-collection-mark]")];
  const vertebrae = new Map(); // name in the report: new name
  let fluid = []; // edits of the fluid, in words
  const discs = new Map(); // name in the report: position, or null if deleted

  const say = (text) => { $("correct-status").textContent = text; };

  function item(text, remove) {
    const entry = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Remove";
    button.setAttribute("aria-label", `Remove: ${text}`);
    button.addEventListener("click", () => { remove(); show(); say(`Removed: ${text}`); });
    entry.append(`${text} `, button);
    return entry;
  }

  function show() {
    const entries = [];
    for (const [name, now] of vertebrae) {
      entries.push(item(`${name} is ${now}`, () => vertebrae.delete(name)));
    }
    for (const [name, lps] of discs) {
      const what = lps ? `moved to LPS ${lps.join(", ")}` : "deleted";
      entries.push(item(`Disc ${name} ${what}`, () => discs.delete(name)));
    }
    for (const mark of marks.filter((select) => select.value)) {
      const text = `Collection ${mark.dataset.collectionMark} marked as ${mark.value}`;
      entries.push(item(text, () => { mark.value = ""; }));
    }
    if (fluid.length) {
      entries.push(item(`Fluid ${fluid.join(", ")}`, () => viewer.fluidEdits.clear()));
    }
    $("correct-list").replaceChildren(...entries);
  }

  function choose(name) {
    $("correct-vertebra").value = name;
    $("correct-name").value = name;
  }

  function file() {
    const marked = marks.filter((select) => select.value);
    const named = [
      ...vertebrae.keys(), ...discs.keys(), ...marked.map((select) => select.dataset.collectionMark),
    ];
    return {
      schema: "leakloc.corrections/1",
      study_instance_uid: data.study_instance_uid,
      report_created: data.report_created,
      reader: $("correct-reader").value.trim(),
      created: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      vertebrae: [...vertebrae].map(([name, now]) => ({ name, new_name: now })),
      discs: [...discs].map(([name, lps]) => ({ name, lps_mm: lps })),
      collections: marked.map((select) => ({
        id: Number(select.dataset.collectionMark), is_fluid: select.value === "true",
      })),
      ...(fluid.length ? { fluid: viewer.fluidEdits.file() } : {}),
      positions_lps_mm: Object.fromEntries(
        named.filter((name) => name in data.positions_lps_mm)
          .map((name) => [name, data.positions_lps_mm[name]]),
      ),
    };
  }

  function download() {
    const content = file();
    if (!content.reader) {
      say("Enter the name or initials of the reader.");
      $("correct-reader").focus();
      return;
    }
    const lists = [content.vertebrae, content.discs, content.collections, fluid];
    if (!lists.some((list) => list.length)) {
      say("No correction has been made.");
      return;
    }
    const { painted = "", erased = "" } = content.fluid || {};
    if (Math.max(painted.length, erased.length) > data.max_runs_length) {
      say("The painted or erased regions are too complex for one file: undo some strokes.");
      return;
    }
    const link = document.createElement("a");
    const text = `${JSON.stringify(content, null, 2)}\n`;
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "corrections.json";
    link.click();
    URL.revokeObjectURL(link.href);
    say("corrections.json has been downloaded.");
  }

  if ($("correct-vertebra")) {
    viewer.addEventListener("vertebra", (event) => {
      $("correct").open = true;
      choose(event.detail);
      $("correct-name").focus();
      say(`${event.detail} selected.`);
    });
    $("correct-vertebra").addEventListener("change", () => choose($("correct-vertebra").value));
    choose($("correct-vertebra").value);
    $("correct-rename").addEventListener("click", () => {
      const [name, now] = [$("correct-vertebra").value, $("correct-name").value];
      if (name === now) {
        say(`${name} already has this name.`);
        return;
      }
      vertebrae.clear(); // the others are renamed by the same number of levels
      vertebrae.set(name, now);
      show();
      say(`${name} is ${now}; all other vertebrae are renamed accordingly.`);
    });
  }
  if ($("correct-disc")) {
    $("correct-move").addEventListener("click", () => {
      const name = $("correct-disc").value;
      discs.set(name, viewer.dataset.lps.split(",").map(Number));
      show();
      say(`Disc ${name} moved to the cross-hair.`);
    });
    $("correct-delete").addEventListener("click", () => {
      const name = $("correct-disc").value;
      discs.set(name, null);
      show();
      say(`Disc ${name} deleted; it will be placed midway between its vertebrae.`);
    });
  }
  for (const mark of marks) mark.addEventListener("change", show);
  viewer.addEventListener("fluid", (event) => {
    const { painted_ml: painted, erased_ml: erased } = event.detail;
    fluid = [["painted", painted], ["erased", erased]].filter(([, ml]) => ml > 0)
      .map(([edit, ml]) => `${edit} (${ml.toPrecision(2)} mL)`);
    show();
  });
  $("correct-download").addEventListener("click", download);
})();
