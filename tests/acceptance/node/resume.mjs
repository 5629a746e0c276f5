// Streams rows as CSV, going on at the next replica where one is lost, with nothing of Rowmint's but its .proto files.
//
//     node resume.mjs ADDRESS,ADDRESS... MODEL ROWS SEED OUTPUT
//
// When the first rows are there it prints {"rows": ...} and waits for a line on its input: the test can then harm
// the replica meanwhile. At the end it prints {version, rows, calls}: the version sampled, the rows written to OUTPUT,
// and for every call the address called and the row it began with.
import { createWriteStream } from "node:fs";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { finished } from "node:stream/promises";
import { setTimeout } from "node:timers/promises";

import { credentials } from "@grpc/grpc-js";

import { SERVER_LIMITS, check, crc32c, errorInfo, load, run } from "./contract.mjs";

const MOST_FAILURES = 8;

/** Whether another call may bring what this one did not: the service gave no reason, or one that passes. */
function passes(error) {
  return error.code !== undefined && ["", "UNAVAILABLE", undefined].includes(errorInfo(error).reason);
}

async function main([addresses, model, rows, seed, path]) {
  const { SamplingService } = load("rowmint/v1/sampling_service.proto");
  const replicas = addresses.split(",");
  const clients = replicas.map((address) => new SamplingService(address, credentials.createInsecure(), SERVER_LIMITS));
  const output = createWriteStream(path);
  const request = { model, rows, seed, format: "ROW_FORMAT_CSV" };
  const input = createInterface({ input: process.stdin });
  let header = null;
  let next = 0n;
  let received = 0;
  let summed = false;
  const calls = [];

  async function take(response) {
    if (response.message === "header") {
      const found = response.header;
      header ??= found;
      for (const field of ["model_version", "model_digest", "plan_digest", "seed"]) {
        const same = found[field].toString("hex") === header[field].toString("hex");
        check(same, `the resumed stream has another ${field}`);
      }
      check(BigInt(found.start_row) === next, `the stream begins at row ${found.start_row}, not ${next}`);
    } else if (response.message === "data") {
      const { first_row, row_count, data, crc32c: sum } = response.data;
      check(BigInt(first_row) === next, `row ${first_row} came where ${next} was next`);
      check(crc32c(data) === sum, `the bytes from row ${first_row} on do not match their crc32c`);
      received += data.length;
      if (!output.write(data)) await once(output, "drain");
      if (next === 0n) {
        console.log(JSON.stringify({ rows: row_count }));
        await once(input, "line");
      }
      next += BigInt(row_count);
    } else if (response.message === "summary") {
      // Not complete: the replica is being terminated, or its streams are limited. The next call resumes it.
      const { complete, next_row } = response.summary;
      check(next === BigInt(complete ? rows : next_row), `the stream ended at row ${next}, and says ${next_row}`);
      summed = true;
    }
  }

  try {
    for (let failures = 0; next < BigInt(rows); ) {
      const turn = calls.length % clients.length;
      calls.push({ address: replicas[turn], start_row: String(next) });
      summed = false;
      const stream = clients[turn].Sample(request, { deadline: Date.now() + 120000 });
      try {
        for await (const response of stream) await take(response);
      } catch (error) {
        if (!passes(error) || failures === MOST_FAILURES) throw error;
      } finally {
        stream.cancel(); // harmless where it has ended
      }
      // Without a summary the stream was cut.
      if (!summed) await setTimeout(25 * 2 ** failures++);
      check(failures <= MOST_FAILURES, `the stream was cut ${failures} times`);
      if (header === null) continue;
      Object.assign(request, {
        model: header.model_version,
        seed: header.seed,
        expected_model_digest: header.model_digest,
        expected_plan_digest: header.plan_digest,
        start_row: String(next),
        framing: "FRAMING_RESUME",
        received_bytes: String(received),
      });
    }
    output.end();
    await finished(output);
    return { version: header.model_version, rows: String(next), calls };
  } finally {
    input.close();
    for (const client of clients) client.close();
  }
}

await run(main, 5, "node resume.mjs ADDRESS,ADDRESS... MODEL ROWS SEED OUTPUT");
