// Samples rows of a model as typed columns, with nothing of Rowmint's but its .proto files.
//
//     node sample.mjs ADDRESS MODEL ROWS SEED [WHERE_JSON]
//
// WHERE_JSON is a list of predicates as in protos/rowmint/v1/condition.proto, for example
//     [{"column": "origin", "equals": {"string_value": "JFK"}},
//      {"column": "dep_delay", "range": {"minimum": {"int64_value": "60"}, "minimum_exclusive": true}}]
//
// Prints one JSON object: the header, the columns with their values, the summary. An int64 and a decimal are text, as a
// JavaScript number would lose digits; days and instants are ISO 8601 text; a missing cell is null. A failed call
// prints {"error": {code, message, reason, metadata}} and ends with status 1.
import { credentials } from "@grpc/grpc-js";

import { SERVER_LIMITS, check, load, run } from "./contract.mjs";

/** ISO text of whole microseconds since 1970, with six digits of fraction. */
function instant(microseconds, zoned) {
  const total = BigInt(microseconds);
  const fraction = ((total % 1000000n) + 1000000n) % 1000000n;
  const seconds = (total - fraction) / 1000000n;
  const text = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return `${text}.${fraction.toString().padStart(6, "0")}${zoned ? "Z" : ""}`;
}

/** The values of one column of a batch, missing cells null. */
function cells(column, spec, categories, rowCount) {
  const kind = column.values;
  const values = column[kind].values;
  check(values.length === rowCount, `column ${spec.name}: ${values.length} values for ${rowCount} rows`);
  const validity = column.validity;
  check(
    validity.length === 0 || validity.length === Math.ceil(rowCount / 8),
    `column ${spec.name}: ${validity.length} bytes of validity for ${rowCount} rows`,
  );
  const present = (row) => validity.length === 0 || ((validity[row >> 3] >> (row & 7)) & 1) === 1;
  const readers = {
    doubles: (value) => value,
    bools: (value) => value,
    strings: (value) => value,
    indices: (value) => {
      check(value < categories.length, `column ${spec.name}: index ${value} of ${categories.length} categories`);
      return categories[value];
    },
    int64s: {
      DATA_TYPE_DATE: (value) => new Date(Number(value) * 86400000).toISOString().slice(0, 10),
      DATA_TYPE_TIMESTAMP: (value) => instant(value, spec.time_zone !== ""),
    }[spec.data_type] ?? ((value) => value),
  };
  return values.map((value, row) => (present(row) ? readers[kind](value) : null));
}

/** Reads a whole stream, checking on the way that it is one. */
async function readStream(call) {
  let header = null;
  let summary = null;
  let nextRow = 0n;
  const columns = [];
  for await (const response of call) {
    check(summary === null, "a message came after the summary");
    if (response.message === "header") {
      check(header === null, "a second header came");
      header = response.header;
      nextRow = BigInt(header.start_row);
      for (const spec of header.schema.columns) {
        columns.push({ name: spec.name, data_type: spec.data_type, values: [] });
      }
      check(header.categories.length === columns.length, "there is not one category list a column");
    } else if (response.message === "data") {
      check(header !== null, "data came before the header");
      const data = response.data;
      check(BigInt(data.first_row) === nextRow, `row ${data.first_row} came where ${nextRow} was next`);
      check(data.data.length === 0, "columns came with bytes beside them");
      for (const batch of data.batches) {
        check(BigInt(batch.first_row) === nextRow, `a batch begins at row ${batch.first_row}, not ${nextRow}`);
        check(batch.columns.length === columns.length, `a batch has ${batch.columns.length} columns`);
        batch.columns.forEach((column, index) => {
          const spec = header.schema.columns[index];
          const found = cells(column, spec, header.categories[index].values, batch.row_count);
          for (const cell of found) columns[index].values.push(cell);
        });
        nextRow += BigInt(batch.row_count);
      }
      check(BigInt(data.first_row) + BigInt(data.row_count) === nextRow, "a message's rows are not its batches'");
    } else if (response.message === "summary") {
      check(header !== null, "a summary came before the header");
      summary = response.summary;
    }
  }
  check(summary !== null, "the stream was cut: it ended without a summary");
  check(summary.complete, `the stream ended at row ${summary.next_row}`);
  check(nextRow === BigInt(header.end_row), `the stream ended at row ${nextRow} of ${header.end_row}`);
  check(BigInt(summary.rows_delivered) === nextRow - BigInt(header.start_row), "the summary counts other rows");
  return {
    header: {
      model_version: header.model_version,
      model_digest: header.model_digest.toString("hex"),
      plan_digest: header.plan_digest.toString("hex"),
      seed: header.seed,
      grid: header.grid,
      rows: header.rows,
      start_row: header.start_row,
      end_row: header.end_row,
    },
    columns,
    summary: {
      candidates: summary.candidates,
      accepted: summary.accepted,
      rows_delivered: summary.rows_delivered,
      complete: summary.complete,
    },
  };
}

async function main([address, model, rows, seed, where = "[]"]) {
  const { SamplingService } = load("rowmint/v1/sampling_service.proto");
  const client = new SamplingService(address, credentials.createInsecure(), SERVER_LIMITS);
  const request = { model, rows, seed, where: { predicates: JSON.parse(where) }, format: "ROW_FORMAT_COLUMNS" };
  const call = client.Sample(request, { deadline: Date.now() + 120000 });
  try {
    return await readStream(call);
  } finally {
    call.cancel(); // harmless where it has ended
    client.close();
  }
}

await run(main, 4, "node sample.mjs ADDRESS MODEL ROWS SEED [WHERE_JSON]");
