// Uploads a table, fits a model of it and watches the fit, with nothing of Rowmint's but its .proto files.
//
//     node fit.mjs ADDRESS PROJECT ID FILE PRIMARY_KEY
//
// FILE is a CSV file; dataset, training job and model are all called ID. The upload and the watching are each broken
// off once and resumed, as after a lost connection. Prints {dataset, committed, broken_after, events, job}: the
// finished dataset, where the upload was resumed, the last event before the watching broke off, all events, the
// ended job.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import { credentials, status } from "@grpc/grpc-js";

import { call, check, crc32c, errorInfo, load, run, until } from "./contract.mjs";

const CHUNK_BYTES = 32 * 1024; // a message may have 2 MiB

/** Sends the bytes from `start` to `end`; if these are not all, waits until some are safe and breaks the stream off. */
async function write(datasets, name, bytes, start, end) {
  let stream;
  const answer = new Promise((resolve, reject) => {
    const deadline = Date.now() + 120000;
    stream = datasets.WriteDataset({ deadline }, (error, found) => (error ? reject(error) : resolve(found.dataset)));
  });
  // An answer that comes before all is sent is a refusal: `answer` has it, and `written` need not.
  answer.catch(() => {});
  const written = (message) => Promise.race([answer, new Promise((sent) => stream.write(message, sent))]);
  for (let offset = start; offset < end; offset += CHUNK_BYTES) {
    const data = bytes.subarray(offset, Math.min(offset + CHUNK_BYTES, end));
    await written({ name, write_offset: String(offset), data, crc32c: crc32c(data) });
  }
  if (end < bytes.length) {
    const safe = async () => BigInt((await call(datasets, "GetDataset", { name })).committed_size) > 0n;
    await until(safe, `no byte of ${name} is committed`);
    stream.cancel();
    return answer.catch((error) => check(error.code === status.CANCELLED, error.message));
  }
  const sha256 = createHash("sha256").update(bytes).digest();
  await written({ write_offset: String(end), finish_write: { total_size: String(end), sha256 } });
  stream.end();
  return answer;
}

async function upload(datasets, parent, id, file, primaryKey) {
  const bytes = readFileSync(file);
  const dataset = { format: { csv: {} }, primary_key: primaryKey };
  const { name } = await call(datasets, "CreateDataset", { parent, dataset_id: id, dataset });
  await write(datasets, name, bytes, 0, Math.floor(bytes.length / 2));
  let committed = Number((await call(datasets, "GetDataset", { name })).committed_size);
  await write(datasets, name, bytes, committed, bytes.length).catch((error) => {
    // What the broken stream had still under way may be committed after the call: the refusal says how much.
    const { reason, metadata } = errorInfo(error);
    if (reason !== "WRITE_OFFSET") throw error;
    committed = Number(metadata.committed_size);
    return write(datasets, name, bytes, committed, bytes.length);
  });
  let found;
  await until(async () => {
    found = await call(datasets, "GetDataset", { name });
    return found.state !== "DATASET_STATE_INGESTING";
  }, `${name} is not read`);
  check(found.state === "DATASET_STATE_READY", `${name}: ${found.errors.map((error) => error.message).join("; ")}`);
  return { found, committed };
}

/** The events of a job after number `known`, at most `most` of them. */
async function watch(training, name, known, most) {
  const stream = training.WatchTrainingJob({ name, after_sequence: String(known) }, { deadline: Date.now() + 120000 });
  const events = [];
  try {
    for await (const event of stream) {
      check(Number(event.sequence) === known + events.length + 1, "an event is missing or comes twice");
      events.push(event);
      if (events.length === most) break;
    }
  } finally {
    stream.cancel(); // leaving the loop ends the reading, not the call
  }
  return events;
}

async function main([address, project, id, file, primaryKey]) {
  const { DatasetService } = load("rowmint/v1/dataset_service.proto");
  const { TrainingService } = load("rowmint/v1/training_service.proto");
  const datasets = new DatasetService(address, credentials.createInsecure());
  const training = new TrainingService(address, credentials.createInsecure());
  try {
    const parent = `projects/${project}`;
    const { found, committed } = await upload(datasets, parent, id, file, primaryKey);
    const job = { dataset: found.name, model: `${parent}/models/${id}`, config: { independent: {}, seed: "3" } };
    const request = { parent, training_job_id: id, training_job: job };
    const { name } = (await call(training, "CreateTrainingJob", request)).training_job;
    const first = await watch(training, name, 0, 1);
    const rest = await watch(training, name, first.length, Infinity);
    const events = [...first, ...rest].map(({ sequence, state, phase }) => ({ sequence, state, phase }));
    const { state, model_version } = await call(training, "GetTrainingJob", { name });
    const dataset = { state: found.state, rows: found.row_count, sha256: found.sha256.toString("hex") };
    return { dataset, committed, broken_after: first.length, events, job: { state, model_version } };
  } finally {
    datasets.close();
    training.close();
  }
}

await run(main, 5, "node fit.mjs ADDRESS PROJECT ID FILE PRIMARY_KEY");
