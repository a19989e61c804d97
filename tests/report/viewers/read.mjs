// Reads an SR and a SEG with the adapters of Cornerstone3D, as OHIF does, and prints JSON.
// Usage: node read.mjs FOLDER_OF_NODE_MODULES SR SEG IMAGE...
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, srPath, segPath, ...imagePaths] = process.argv.slice(2);
const modules = join(folder, 'node_modules');
const { log } = console;
console.log = console.info = console.debug = () => {};
const warnings = [];
console.warn = console.error = (...words) => warnings.push(words.map(String).join(' '));

// The packages export only ES modules, which are imported by their path.
const load = (...parts) => import(pathToFileURL(join(modules, ...parts)));
const { adaptersSR, adaptersSEG } = await load('@cornerstonejs', 'adapters', 'dist', 'esm', 'index.js');
const core = await load('@cornerstonejs', 'core', 'dist', 'esm', 'index.js');
const dcmjs = createRequire(join(modules, 'dcmjs', 'package.json'))('dcmjs');

const buffer = path => {
  const bytes = readFileSync(path);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
};
const dataset = path => {
  const { DicomMessage, DicomMetaDictionary } = dcmjs.data;
  const file = DicomMessage.readFile(buffer(path));
  return DicomMetaDictionary.naturalizeDataset(file.dict);
};

const images = new Map(imagePaths.map((path, n) => [`image:${n}`, dataset(path)]));
const provider = (type, imageId) => {
  const image = images.get(imageId);
  if (!image) return undefined;
  const numbers = word => Array.from(image[word], Number);
  const [row, column] = [numbers('ImageOrientationPatient').slice(0, 3), numbers('ImageOrientationPatient').slice(3)];
  const [rowSpacing, columnSpacing] = numbers('PixelSpacing');
  return {
    instance: image,
    generalImageModule: { sopInstanceUID: image.SOPInstanceUID },
    generalSeriesModule: { seriesInstanceUID: image.SeriesInstanceUID, modality: image.Modality },
    imagePixelModule: { rows: image.Rows, columns: image.Columns, bitsAllocated: 16, samplesPerPixel: 1 },
    imagePlaneModule: {
      frameOfReferenceUID: image.FrameOfReferenceUID,
      rows: image.Rows,
      columns: image.Columns,
      imageOrientationPatient: [...row, ...column],
      rowCosines: row,
      columnCosines: column,
      imagePositionPatient: numbers('ImagePositionPatient'),
      rowPixelSpacing: rowSpacing,
      columnPixelSpacing: columnSpacing,
      pixelSpacing: [rowSpacing, columnSpacing],
    },
  }[type];
};
core.metaData.addProvider(provider, 10);

const { MeasurementReport } = adaptersSR.Cornerstone3D;
const state = MeasurementReport.generateToolState(dataset(srPath), {}, core.metaData);
const annotations = Object.entries(state).flatMap(([tool, found]) =>
  found.map(made => ({
    tool,
    trackingUID: made.TrackingUniqueIdentifier,
    frameOfReference: made.annotation.metadata.FrameOfReferenceUID,
    points: made.annotation.data.handles.points,
    text: made.commentGroup?.TextValue,
  }))
);

const read = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(
  [...images.keys()], buffer(segPath), { metadataProvider: core.metaData }
);
const counts = {};
for (const layer of read.labelMapImages) {
  for (const image of layer) {
    for (const value of image.voxelManager.getScalarData()) {
      if (value) counts[value] = (counts[value] ?? 0) + 1;
    }
  }
}
const segments = read.segMetadata.data.filter(Boolean).map(segment => ({
  number: Number(segment.SegmentNumber),
  label: segment.SegmentLabel,
  color: Array.from(segment.RecommendedDisplayCIELabValue),
  trackingUID: segment.TrackingUID,
  voxels: counts[segment.SegmentNumber] ?? 0,
}));
log(JSON.stringify({ annotations, segments, overlapping: read.overlappingSegments, warnings }));
process.exit(0); // the cache of the viewer keeps timers
