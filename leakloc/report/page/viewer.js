// Three linked planes through a small volume, on plain canvases. Indices are [i, j, k] with i to
// the patient's left, j to the back and k to the head (nearly: `affine` holds the obliquity).
"use strict";
(() => {
  const holder = document.getElementById("viewer-data");
  const root = document.getElementById("viewer");
  if (!holder || !root) return;
  const data = JSON.parse(holder.textContent);
  const [K, J, I] = data.shape;
  const counts = [I, J, K];
  const $ = (id) => document.getElementById(id);

  const SAC_COLOR = "#56b4e9"; // Okabe and Ito: distinguishable with color vision deficiency
  const FLUID_COLOR = "#e69f00";
  const INK = "#eceef2";
  const BODY_FRONT_MM = 27; // from the center of a body to its name in front of it
  const BODY_SIDE_MM = 34; // and lateral to it
  const DISC_HALF_MM = 17; // half the depth of a disc
  const CRESCENT_MM = 15; // how far the middle of a crescent may lie from the fluid
  const SCALE_MM = 20;
  const ZOOMS = [1, 1.5, 2, 3, 4];
  const AXIAL_FRACTION = 0.6; // of that height, controls are below it
  const NARROW_PX = 700; // as in viewer.css
  const SIDE_PX = 260; // for the controls
  const SIDE_FRACTION = 0.26; // of the width: the axial plane must not get small
  const GAP_PX = 12;
  const MIN_PX_PER_MM = 1.1; // below it a root is not visible: start enlarged
  const LABEL_REACH_PX = 14; // how far from the middle of a name a press selects its vertebra
  const [PAINTED, ERASED] = [1, 2]; // values of edited voxels
  const TINTS = { [PAINTED]: [230, 159, 0], [ERASED]: [204, 121, 167] };
  const TINT = 0.45;
  const DRAG_PX = 4; // a press that moves less is a click
  const HEIGHT_FRACTION = 0.82; // of the window, so that a plane and its slider are visible together

  // Axes of the planes: across the picture, down it (flipped: head on top), and through it.
  const planes = {
    sagittal: { across: 1, down: 2, through: 0, ends: ["L", "R"] },
    coronal: { across: 0, down: 2, through: 1, ends: ["P", "A"] },
    axial: { across: 0, down: 1, through: 2, ends: ["H", "F"] },
  };

  const state = {
    at: counts.map((n) => Math.floor(n / 2)),
    window: [...data.window],
    zoom: 0,
    masks: true,
    names: true,
    cross: true,
    ready: false,
  };
  const signal = new Uint8Array(I * J * K);
  const labels = new Uint8Array(I * J * K);
  const edits = new Uint8Array(I * J * K); // fluid painted or erased by the reader
  const strokes = []; // maps of voxels to their values before the stroke
  const brush = { mode: "off", diameter: 4, sphere: false, stroke: null };
  const inverse = invert(data.affine);

  // --- geometry ---------------------------------------------------------------------------

  function invert(m) {
    const [a, b, c] = [0, 1, 2].map((n) => [m[0][n], m[1][n], m[2][n]]);
    const cross = (u, v) => [
      u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    const volume = dot(a, cross(b, c));
    return [cross(b, c), cross(c, a), cross(a, b)].map((row) => row.map((x) => x / volume));
  }

  const toLps = (ijk) => [0, 1, 2].map(
    (r) => data.affine[r][0] * ijk[0] + data.affine[r][1] * ijk[1] + data.affine[r][2] * ijk[2]
      + data.affine[r][3]);

  const toIjk = (lps) => inverse.map(
    (row) => row.reduce((sum, x, n) => sum + x * (lps[n] - data.affine[n][3]), 0));

  const clampIndex = (value, axis) => Math.min(Math.max(Math.round(value), 0), counts[axis] - 1);

  function signed(value, positive, negative) {
    return `${value >= 0 ? positive : negative} ${Math.abs(value).toFixed(1)}`;
  }

  function levelName(lps) {
    let best = Infinity;
    let name = "";
    for (const [x, y, z, text] of data.canal) {
      const gap = (x - lps[0]) ** 2 + (y - lps[1]) ** 2 + (z - lps[2]) ** 2;
      if (gap < best) [best, name] = [gap, text];
    }
    return name;
  }

  // --- decoding ---------------------------------------------------------------------------

  async function decode(kind, texts, target) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [J, K];
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    for (let i = 0; i < I; i++) {
      if (!texts[i]) continue;
      const image = new Image();
      image.src = `data:image/${kind};base64,${texts[i]}`;
      await image.decode();
      pen.drawImage(image, 0, 0);
      const pixels = pen.getImageData(0, 0, J, K).data;
      for (let k = 0; k < K; k++) {
        let from = (K - 1 - k) * J * 4;
        let to = k * J * I + i;
        for (let j = 0; j < J; j++, from += 4, to += I) target[to] = pixels[from];
      }
    }
  }

  // --- drawing ----------------------------------------------------------------------------

  function brightness() {
    const [low, high] = state.window;
    const [black, white] = data.signal;
    return Uint8ClampedArray.from({ length: 256 }, (_, n) => {
      const value = black + (n / 255) ** 2 * (white - black);
      const fraction = Math.min(Math.max((value - low) / (high - low), 0), 1);
      return 255 * fraction ** data.gamma;
    });
  }

  const strides = [1, I, I * J];

  /** Places of a plane in the volume's arrays: where it starts, and steps across and down. */
  function walk(plane) {
    const flipped = plane.down === 2;
    let start = state.at[plane.through] * strides[plane.through];
    if (flipped) start += (K - 1) * strides[2];
    return [start, strides[plane.across], flipped ? -strides[2] : strides[plane.down]];
  }

  function slice(plane, source) {
    const [columns, rows] = [counts[plane.across], counts[plane.down]];
    const [start, across, down] = walk(plane);
    const out = new Uint8Array(columns * rows);
    for (let r = 0, n = 0; r < rows; r++) {
      for (let c = 0, p = start + r * down; c < columns; c++, p += across) out[n++] = source[p];
    }
    return out;
  }

  /** The part of a plane that is shown: left, top, width, height in voxels. */
  function view(plane) {
    const part = (axis, flipped) => {
      const length = counts[axis];
      const shown = length / ZOOMS[state.zoom];
      const middle = flipped ? length - state.at[axis] - 0.5 : state.at[axis] + 0.5;
      return [Math.min(Math.max(middle - shown / 2, 0), length - shown), shown];
    };
    const [left, width] = part(plane.across, false);
    const [top, height] = part(plane.down, plane.down === 2);
    return [left, top, width, height];
  }

  const display = (plane, ijk) => [
    ijk[plane.across] + 0.5,
    (plane.down === 2 ? K - 1 - ijk[2] : ijk[plane.down]) + 0.5,
  ];

  /** Pixels per mm of each plane: as large as the window and the page's width allow. */
  function sizes() {
    const width = root.querySelector(".panes").clientWidth - 1; // widths are fractions
    const mm = (axis) => counts[axis] * data.spacing[axis];
    const narrow = width < NARROW_PX;
    const minPx = narrow ? 110 : 180; // space for names and axis labels on a thin slab
    const side = narrow ? 0 : Math.max(SIDE_PX, width * SIDE_FRACTION) + 2 * GAP_PX;
    const tall = window.innerHeight * HEIGHT_FRACTION;
    let scale = tall / mm(2);
    const wide = () => [0, 1].reduce((sum, axis) => sum + Math.max(mm(axis) * scale, minPx), GAP_PX);
    while (wide() + side > width && scale > 0.2) scale *= 0.98;
    const room = narrow ? width : width - wide() - GAP_PX;
    const axial = Math.min(room / mm(0), (tall * AXIAL_FRACTION) / mm(1));
    return { sagittal: scale, coronal: scale, axial, minPx };
  }

  function resize() {
    const scales = sizes();
    for (const [name, plane] of Object.entries(planes)) {
      const canvas = $(name);
      const ratio = window.devicePixelRatio || 1;
      plane.scale = scales[name];
      const image = counts[plane.across] * data.spacing[plane.across] * plane.scale;
      const width = Math.max(image, scales.minPx);
      const height = counts[plane.down] * data.spacing[plane.down] * plane.scale;
      plane.left = (width - image) / 2;
      plane.size = [width, height];
      plane.image = [image, height];
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    draw();
  }

  let pending = false;
  function draw() {
    if (pending || !state.ready) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      const shades = brightness();
      for (const name of Object.keys(planes)) drawPlane(name, shades);
      tell();
    });
  }

  function drawPlane(name, shades) {
    const plane = planes[name];
    const canvas = $(name);
    const pen = canvas.getContext("2d");
    const ratio = canvas.width / plane.size[0];
    const [columns, rows] = [counts[plane.across], counts[plane.down]];
    const gray = slice(plane, signal);
    const picture = new ImageData(columns, rows);
    const pixels = new Uint32Array(picture.data.buffer);
    for (let n = 0; n < gray.length; n++) pixels[n] = 0xff000000 | (shades[gray[n]] * 0x010101);
    const edited = strokes.length || brush.stroke ? slice(plane, edits) : null;
    if (edited && state.masks) tint(picture.data, edited);
    const store = (plane.store ||= document.createElement("canvas"));
    [store.width, store.height] = [columns, rows];
    store.getContext("2d").putImageData(picture, 0, 0);

    const box = view(plane);
    const zoom = [plane.image[0] / box[2], plane.image[1] / box[3]];
    const place = ([x, y]) => [plane.left + (x - box[0]) * zoom[0], (y - box[1]) * zoom[1]];
    plane.back = ([x, y]) => [(x - plane.left) / zoom[0] + box[0], y / zoom[1] + box[1]];
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, ...plane.size);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(store, ...box, plane.left, 0, ...plane.image);
    pen.save();
    pen.beginPath();
    pen.rect(plane.left, 0, ...plane.image);
    pen.clip();
    if (state.masks) {
      const found = slice(plane, labels);
      if (edited) apply(found, edited);
      outline(pen, found, columns, rows, (v) => v === data.sac, place, SAC_COLOR);
      outline(pen, found, columns, rows, (v) => v > 0 && v !== data.sac, place, FLUID_COLOR);
    }
    if (state.cross) cross(pen, plane, place);
    if (brush.mode !== "off") ring(pen, plane, place);
    pen.restore();
    if (state.names) names(pen, name, plane, place);
    drawAxisLabels(pen, plane, zoom[0] / data.spacing[plane.across]);
    caption(name, plane);
  }

  function tint(pixels, edited) {
    for (let n = 0; n < edited.length; n++) {
      if (!edited[n]) continue;
      TINTS[edited[n]].forEach((value, channel) => {
        pixels[4 * n + channel] = (1 - TINT) * pixels[4 * n + channel] + TINT * value;
      });
    }
  }

  /** Apply the edits of a plane to its labels. */
  function apply(found, edited) {
    for (let n = 0; n < edited.length; n++) {
      if (edited[n] === PAINTED) found[n] = data.sac - 1;
      else if (edited[n] === ERASED) found[n] = 0;
    }
  }

  /** The brush, at the pointer or at the cross-hair. */
  function ring(pen, plane, place) {
    const [x, y] = place(plane.pointer || display(plane, state.at));
    const [right, low] = place((plane.pointer || display(plane, state.at)).map(
      (v, n) => v + brush.diameter / 2 / data.spacing[n ? plane.down : plane.across]));
    pen.lineWidth = 1.5;
    pen.strokeStyle = INK;
    pen.beginPath();
    pen.ellipse(x, y, right - x, low - y, 0, 0, 2 * Math.PI);
    pen.stroke();
  }

  /** Marching squares at one half between voxel centers: thin, and the gray stays as it is. */
  function outline(pen, found, columns, rows, wanted, place, color) {
    const is = (c, r) => (c >= 0 && r >= 0 && c < columns && r < rows
      && wanted(found[r * columns + c]) ? 1 : 0);
    const path = new Path2D();
    const line = (a, b) => { path.moveTo(...place(a)); path.lineTo(...place(b)); };
    let any = false;
    for (let r = -1; r < rows; r++) {
      for (let c = -1; c < columns; c++) {
        const cell = is(c, r) | (is(c + 1, r) << 1) | (is(c + 1, r + 1) << 2) | (is(c, r + 1) << 3);
        if (cell === 0 || cell === 15) continue;
        any = true;
        const [x, y] = [c + 0.5, r + 0.5]; // voxel (0, 0) has its center at (0.5, 0.5)
        const [up, right, low, left] = [[x + 0.5, y], [x + 1, y + 0.5], [x + 0.5, y + 1], [x, y + 0.5]];
        if (cell === 5) { line(left, up); line(right, low); continue; }
        if (cell === 10) { line(up, right); line(low, left); continue; }
        const odd = cell > 7 ? 15 - cell : cell;
        line(...{ 1: [left, up], 2: [up, right], 3: [left, right], 4: [right, low],
          6: [up, low], 7: [left, low] }[odd]);
      }
    }
    if (!any) return;
    pen.lineCap = "round";
    for (const [ink, width] of [["rgba(0,0,0,0.55)", 3], [color, 1.5]]) {
      pen.strokeStyle = ink;
      pen.lineWidth = width;
      pen.stroke(path);
    }
  }

  function cross(pen, plane, place) {
    const [x, y] = place(display(plane, state.at));
    const gap = 9;
    pen.strokeStyle = "rgba(240,228,66,0.75)";
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(0, y); pen.lineTo(x - gap, y);
    pen.moveTo(x + gap, y); pen.lineTo(plane.size[0], y);
    pen.moveTo(x, 0); pen.lineTo(x, y - gap);
    pen.moveTo(x, y + gap); pen.lineTo(x, plane.size[1]);
    pen.stroke();
  }

  function text(pen, words, x, y, align = "left", size = 13) {
    pen.font = `600 ${size}px system-ui, "DejaVu Sans", sans-serif`;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    pen.lineWidth = 3;
    pen.strokeStyle = "#000";
    pen.strokeText(words, x, y);
    pen.fillStyle = INK;
    pen.fillText(words, x, y);
  }

  function names(pen, name, plane, place) {
    const [width, height] = plane.size;
    if (name === "axial") {
      text(pen, levelName(toLps(state.at)).split(",")[0], 8, 14); // the rest is below
      return;
    }
    plane.labels = [];
    const shift = name === "sagittal" ? [0, -BODY_FRONT_MM, 0] : [-BODY_SIDE_MM, 0, 0];
    for (const body of data.vertebrae) {
      const at = toIjk(body.lps).map((x, n) => x + shift[n] / data.spacing[n]);
      const [x, y] = place(display(plane, at));
      if (y <= 6 || y >= height - 6) continue;
      const middle = Math.min(Math.max(x, 18), width - 18);
      plane.labels.push({ name: body.name, x: middle, y });
      text(pen, body.name, middle, y, "center");
    }
    if (name !== "sagittal") return;
    pen.strokeStyle = INK;
    pen.lineWidth = 2;
    for (const disc of data.discs) {
      // In front of the disc, in its plane.
      const front = [0, -1, 0].map((x, n) => x + disc.normal[1] * disc.normal[n]);
      const length = Math.hypot(...front) || 1;
      const ends = [DISC_HALF_MM, DISC_HALF_MM + 5].map((mm) => place(display(plane,
        toIjk(disc.lps.map((x, n) => x + (mm * front[n]) / length)))));
      pen.beginPath();
      pen.moveTo(...ends[0]);
      pen.lineTo(...ends[1]);
      pen.stroke();
    }
  }

  function drawAxisLabels(pen, plane, pxPerMm) {
    const [width, height] = plane.size;
    const [left, right] = data.axis_labels[plane.across];
    const [low, high] = data.axis_labels[plane.down];
    const [top, bottom] = plane.down === 2 ? [high, low] : [low, high];
    text(pen, left, 6, height / 2, "left", 15);
    text(pen, right, width - 6, height / 2, "right", 15);
    text(pen, top, width / 2, 12, "center", 15);
    text(pen, bottom, width / 2, height - 12, "center", 15);
    const bar = SCALE_MM * pxPerMm;
    if (bar > width * 0.7) return;
    const y = height - 30;
    pen.lineWidth = 2;
    pen.strokeStyle = INK;
    pen.beginPath();
    pen.moveTo(width - 10 - bar, y); pen.lineTo(width - 10, y);
    pen.stroke();
    text(pen, `${SCALE_MM} mm`, width - 10, y - 10, "right", 11);
  }

  function caption(name, plane) {
    const value = toLps(state.at)[plane.through];
    const where = `${signed(value, ...plane.ends)} mm`;
    const index = state.at[plane.through] + 1;
    const slider = $(`${name}-slice`);
    slider.value = String(state.at[plane.through]);
    slider.setAttribute("aria-valuetext", `${where}, slice ${index} of ${counts[plane.through]}`);
    $(`${name}-where`).textContent = `${where} (${index}/${counts[plane.through]})`;
  }

  function tell() {
    const lps = toLps(state.at);
    const voxel = state.at[0] + I * (state.at[1] + J * state.at[2]);
    const value = labels[voxel];
    const edited = ["", ", painted", ", erased"][edits[voxel]];
    const what = value === 0 ? "no mask" : value === data.sac ? "thecal sac" : `collection ${value}`;
    const words = [signed(lps[0], "L", "R"), signed(lps[1], "P", "A"), signed(lps[2], "H", "F")];
    const line = `${words.join(", ")} mm · LPS ${lps.map((x) => x.toFixed(1)).join(", ")} · `
      + `${levelName(lps)} · ${what}${edited}`;
    const place = $("viewer-place");
    if (place.textContent !== line) place.textContent = line;
    Object.assign(root.dataset, {
      i: state.at[0], j: state.at[1], k: state.at[2], lps: lps.map((x) => x.toFixed(2)).join(","),
    });
    const [low, high] = state.window;
    const span = data.signal[1] - data.signal[0];
    $("window-width").value = String((200 * (high - low)) / span);
    $("window-level").value = String((200 * ((low + high) / 2 - data.signal[0])) / span);
    $("window-text").textContent = `W ${Math.round(high - low)} L ${Math.round((low + high) / 2)}`;
    $("zoom-text").textContent = `${ZOOMS[state.zoom]}×`;
  }

  // --- doing ------------------------------------------------------------------------------

  function goTo(ijk) {
    state.at = ijk.map(clampIndex);
    draw();
  }

  function step(axis, by) {
    const at = [...state.at];
    at[axis] += by;
    goTo(at);
  }

  function setWindow(width, level) {
    const span = data.signal[1] - data.signal[0];
    const wide = Math.min(Math.max(width, span / 200), span);
    const middle = Math.min(Math.max(level, data.signal[0]), data.signal[1]);
    state.window = [middle - wide / 2, middle + wide / 2];
    draw();
  }

  function setZoom(to) {
    state.zoom = Math.min(Math.max(to, 0), ZOOMS.length - 1);
    draw();
  }

  function toggle(what) {
    state[what] = !state[what];
    $(`show-${what}`).checked = state[what];
    draw();
  }

  // --- brush ------------------------------------------------------------------------------

  function setMode(mode) {
    brush.mode = mode;
    if (mode !== "off" && !state.masks) toggle("masks");
    root.classList.toggle("brush", mode !== "off"); // touch paints instead of scrolling
    document.querySelector(`input[name=brush][value=${mode}]`).checked = true;
    draw();
  }

  function mark(voxel) {
    const fluid = labels[voxel] > 0 && labels[voxel] !== data.sac;
    const paints = brush.mode === "paint";
    const value = paints === fluid ? 0 : paints ? PAINTED : ERASED;
    if (edits[voxel] === value) return;
    if (!brush.stroke.has(voxel)) brush.stroke.set(voxel, edits[voxel]);
    edits[voxel] = value;
  }

  /** Apply the brush at a position of a plane, in voxels from its upper left corner. */
  function dab(plane, [x, y]) {
    const center = [...state.at];
    center[plane.across] = x - 0.5;
    center[plane.down] = plane.down === 2 ? K - 0.5 - y : y - 0.5;
    const nearest = center.map(Math.round);
    if (nearest.some((n, axis) => n < 0 || n >= counts[axis])) return;
    const range = (axis) => {
      const flat = axis === plane.through && !brush.sphere;
      const reach = flat ? 0 : brush.diameter / 2 / data.spacing[axis];
      return [Math.max(Math.min(Math.ceil(center[axis] - reach), nearest[axis]), 0),
        Math.min(Math.max(Math.floor(center[axis] + reach), nearest[axis]), counts[axis] - 1)];
    };
    const [[i0, i1], [j0, j1], [k0, k1]] = [0, 1, 2].map(range);
    for (let k = k0; k <= k1; k++) {
      for (let j = j0; j <= j1; j++) {
        for (let i = i0; i <= i1; i++) {
          const ijk = [i, j, k];
          const gap = Math.hypot(...ijk.map((n, axis) => (n - center[axis]) * data.spacing[axis]));
          const middle = ijk.every((n, axis) => n === nearest[axis]); // at least one voxel
          if (middle || gap <= brush.diameter / 2) mark(i + I * (j + J * k));
        }
      }
    }
  }

  /** Apply the brush along a line, without gaps. */
  function drag(plane, from, to) {
    const mm = Math.hypot((to[0] - from[0]) * data.spacing[plane.across],
      (to[1] - from[1]) * data.spacing[plane.down]);
    const steps = Math.max(Math.ceil(mm / Math.max(brush.diameter / 4, 0.25)), 1);
    for (let n = 1; n <= steps; n++) {
      dab(plane, from.map((x, axis) => x + ((to[axis] - x) * n) / steps));
    }
    draw();
  }

  function startStroke(plane, at) {
    brush.stroke = new Map();
    dab(plane, at);
    draw();
  }

  function endStroke() {
    if (brush.stroke && brush.stroke.size) strokes.push(brush.stroke);
    brush.stroke = null;
    changed();
  }

  function undo() {
    const last = strokes.pop();
    if (last) for (const [voxel, value] of last) edits[voxel] = value;
    changed();
  }

  function changed() {
    const ml = data.spacing.reduce((product, mm) => product * mm, 0.001);
    const count = [0, 0, 0];
    for (const value of edits) count[value]++;
    $("brush-undo").disabled = !strokes.length;
    root.dispatchEvent(new CustomEvent("fluid", {
      detail: { painted_ml: count[PAINTED] * ml, erased_ml: count[ERASED] * ml },
    }));
    draw();
  }

  /** Run lengths of an edit, in the order i, k, j: voxels with it and without it alternate. */
  function runs(value) {
    const lengths = [];
    let [inside, length] = [false, 0];
    for (let i = 0; i < I; i++) {
      for (let k = 0; k < K; k++) {
        for (let j = 0, p = i + I * J * k; j < J; j++, p += I) {
          if ((edits[p] === value) !== inside) {
            lengths.push(length);
            [inside, length] = [!inside, 0];
          }
          length++;
        }
      }
    }
    if (inside) lengths.push(length);
    return lengths.join(" ");
  }

  root.fluidEdits = {
    file: () => ({
      shape_kji: data.shape, affine_lps: data.affine, painted: runs(PAINTED), erased: runs(ERASED),
    }),
    clear: () => {
      edits.fill(0);
      strokes.length = 0;
      changed();
    },
  };

  function listenToBrush() {
    $("brush").disabled = false;
    for (const choice of document.querySelectorAll("input[name=brush]")) {
      choice.addEventListener("change", () => setMode(choice.value));
    }
    const size = () => {
      brush.diameter = Number($("brush-size").value);
      $("brush-text").textContent = `${brush.diameter} mm`;
      draw();
    };
    $("brush-size").addEventListener("input", size);
    size();
    const sphere = () => { brush.sphere = $("brush-sphere").checked; };
    $("brush-sphere").addEventListener("change", sphere);
    sphere();
    $("brush-undo").addEventListener("click", undo);
  }

  /** The voxel of a collection nearest to its center: that of a crescent lies outside it. */
  function within(lps, id) {
    const center = toIjk(lps).map(clampIndex);
    const label = (i, j, k) => labels[i + I * (j + J * k)];
    if (!id || label(...center) === id) return center;
    const range = (axis) => {
      const reach = Math.ceil(CRESCENT_MM / data.spacing[axis]);
      return [Math.max(center[axis] - reach, 0), Math.min(center[axis] + reach, counts[axis] - 1)];
    };
    const [[i0, i1], [j0, j1], [k0, k1]] = [0, 1, 2].map(range);
    let [best, found] = [Infinity, center];
    for (let k = k0; k <= k1; k++) {
      for (let j = j0; j <= j1; j++) {
        for (let i = i0; i <= i1; i++) {
          if (label(i, j, k) !== id) continue;
          const gap = Math.hypot(...[i, j, k].map((x, n) => (x - center[n]) * data.spacing[n]));
          if (gap < best) [best, found] = [gap, [i, j, k]];
        }
      }
    }
    return found;
  }

  function visit(element) {
    const lps = element.dataset.lps.split(",").map(Number);
    goTo(within(lps, Number(element.dataset.collection || 0)));
    root.scrollIntoView({ block: "start" });
    $("sagittal").focus({ preventScroll: true });
  }

  /** Keys of the brush; returns whether the key is one of them. */
  function pressedBrush(key, plane) {
    if (!state.ready) return false;
    const modes = { b: "paint", e: "erase" };
    const name = key.toLowerCase();
    if (name in modes) setMode(brush.mode === modes[name] ? "off" : modes[name]);
    else if (name === "z") undo();
    else if (key === " " && brush.mode !== "off") {
      startStroke(plane, display(plane, state.at));
      endStroke();
    } else return false;
    return true;
  }

  function pressed(event, plane) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { key } = event;
    const arrows = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const axis = plane.through;
    plane.pointer = null;
    if (key in arrows && event.shiftKey !== (brush.mode !== "off")) {
      const [right, up] = arrows[key];
      if (right) step(plane.across, right);
      else step(plane.down, plane.down === 2 ? up : -up);
    } else if (key in arrows) {
      step(axis, arrows[key][0] || arrows[key][1]);
    } else if (key === "PageUp") step(axis, 10);
    else if (key === "PageDown") step(axis, -10);
    else if (key === "Home") step(axis, -counts[axis]);
    else if (key === "End") step(axis, counts[axis]);
    else if (key === "m" || key === "M") toggle("masks");
    else if (key === "n" || key === "N") toggle("names");
    else if (key === "c" || key === "C") toggle("cross");
    else if (key === "r" || key === "R") setWindow(...initial());
    else if (key === "+" || key === "=") setZoom(state.zoom + 1);
    else if (key === "-") setZoom(state.zoom - 1);
    else if (!pressedBrush(key, plane)) {
      const wanted = data.collections.find((collection) => String(collection.id) === key);
      if (!wanted) return;
      goTo(within(wanted.lps, wanted.id));
    }
    event.preventDefault();
  }

  const initial = () => [data.window[1] - data.window[0], (data.window[0] + data.window[1]) / 2];

  function listen(name) {
    const plane = planes[name];
    const canvas = $(name);
    const slider = $(`${name}-slice`);
    slider.max = String(counts[plane.through] - 1);
    slider.addEventListener("input", () => {
      const at = [...state.at];
      at[plane.through] = Number(slider.value);
      goTo(at);
    });
    let rolled = 0;
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return; // the browser's own zoom
      event.preventDefault();
      rolled += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY; // a trackpad sends pixels
      const steps = Math.trunc(rolled);
      if (steps) step(plane.through, -Math.sign(steps) * Math.min(Math.abs(steps), 3));
      rolled -= steps;
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => pressed(event, plane));
    let from = null;
    const position = (event) => {
      const box = canvas.getBoundingClientRect();
      return plane.back([event.clientX - box.left, event.clientY - box.top]);
    };
    canvas.addEventListener("pointerleave", () => {
      plane.pointer = null;
      if (brush.mode !== "off") draw();
    });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary || !state.ready) return;
      if (brush.mode !== "off") {
        plane.pointer = position(event);
        canvas.setPointerCapture(event.pointerId);
        startStroke(plane, plane.pointer);
        return;
      }
      from = { x: event.clientX, y: event.clientY, window: state.window, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (brush.mode !== "off" && event.isPrimary) {
        const before = plane.pointer;
        plane.pointer = position(event);
        if (brush.stroke) drag(plane, before || plane.pointer, plane.pointer);
        else draw();
        return;
      }
      if (!from || event.pointerType === "touch") return; // a finger scrolls the page
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      from.moved ||= Math.hypot(dx, dy) > DRAG_PX;
      if (!from.moved) return;
      const [low, high] = from.window;
      const perPx = initial()[0] / 300; // a drag of 300 px doubles the width
      setWindow(high - low + dx * perPx, (low + high) / 2 + dy * perPx);
    });
    canvas.addEventListener("pointercancel", () => {
      from = null;
      if (brush.stroke) endStroke();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (brush.stroke && event.isPrimary) {
        if (event.pointerType === "touch") plane.pointer = null;
        endStroke();
        return;
      }
      const clicked = from && !from.moved;
      from = null;
      if (!clicked) return;
      const box = canvas.getBoundingClientRect();
      const press = [event.clientX - box.left, event.clientY - box.top];
      const near = (plane.labels || []).find(
        (label) => Math.hypot(label.x - press[0], label.y - press[1]) < LABEL_REACH_PX);
      if (state.names && near) {
        root.dispatchEvent(new CustomEvent("vertebra", { detail: near.name }));
        return;
      }
      const [x, y] = plane.back(press);
      const at = [...state.at];
      at[plane.across] = x - 0.5;
      at[plane.down] = plane.down === 2 ? K - 1 - (y - 0.5) : y - 0.5;
      goTo(at);
    });
  }

  async function start() {
    for (const name of Object.keys(planes)) listen(name);
    for (const what of ["masks", "names", "cross"]) {
      $(`show-${what}`).addEventListener("change", () => {
        state[what] = $(`show-${what}`).checked;
        draw();
      });
    }
    const span = data.signal[1] - data.signal[0];
    for (const id of ["window-width", "window-level"]) {
      $(id).addEventListener("input", () => setWindow(
        (Number($("window-width").value) * span) / 200,
        data.signal[0] + (Number($("window-level").value) * span) / 200));
    }
    $("window-reset").addEventListener("click", () => setWindow(...initial()));
    $("zoom-in").addEventListener("click", () => setZoom(state.zoom + 1));
    $("zoom-out").addEventListener("click", () => setZoom(state.zoom - 1));
    for (const element of document.querySelectorAll("[data-lps]")) {
      if (element === root) continue;
      element.addEventListener("click", (event) => {
        event.preventDefault();
        visit(element);
      });
    }
    $("viewer-place").textContent = "Loading the slices";
    try {
      await Promise.all([decode("webp", data.slices, signal), decode("png", data.labels, labels)]);
    } catch {
      $("viewer-place").textContent = "The slices could not be decoded by this browser.";
      return;
    }
    const known = new Uint8Array(256);
    for (const value of data.values) known[value] = 1;
    if (!labels.every((value) => known[value])) {
      // Some browsers alter what a page reads from a canvas, against fingerprinting.
      $("viewer-place").textContent = "This browser alters pictures that a page reads, so the "
        + "viewer would show what is not there. Allow canvas reading or use another browser.";
      root.dataset.ready = "no";
      return;
    }
    const first = data.collections[0];
    const middle = data.canal[Math.floor(data.canal.length / 2)];
    state.at = first ? within(first.lps, first.id) : within(middle.slice(0, 3), 0);
    state.ready = true;
    while (sizes().sagittal * ZOOMS[state.zoom] < MIN_PX_PER_MM && state.zoom < 2) state.zoom++;
    resize();
    listenToBrush();
    window.addEventListener("resize", resize);
    root.dataset.ready = "yes";
  }

  start();
})();
