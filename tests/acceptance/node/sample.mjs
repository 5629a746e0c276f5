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
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = process.env.ROWMINT_PROTOS ?? fileURLToPath(new URL("../../../protos", import.meta.url));

/** Loads a file of the contract; 64-bit integers become text, fields keep the names they have there. */
function load(file) {
  const options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true, includeDirs: [PROTOS] };
  return grpc.loadPackageDefinition(protoLoader.loadSync(file, options)).rowmint.v1;
}

class ProtocolError extends Error {}

function check(holds, message) {
  if (!holds) throw new ProtocolError(message);
}

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

const LENGTH_DELIMITED = 2;

/** The fields of a protobuf message whose schema is not loaded: number and bytes, or number and integer. */
function* fields(bytes) {
  let position = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[position++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(value);
    }
  };
  while (position < bytes.length) {
    const tag = varint();
    const wire = tag & 7;
    if (wire !== LENGTH_DELIMITED) {
      check(wire === 0, `wire type ${wire} is not one a status has`);
      yield [tag >> 3, varint()];
      continue;
    }
    const length = varint();
    yield [tag >> 3, bytes.subarray(position, position + length)];
    position += length;
  }
}

/** The google.rpc.ErrorInfo of a failed call, or nothing: Status{3: Any{1: url, 2: ErrorInfo{1: reason, 3: map}}}. */
function errorInfo(error) {
  const [trailer] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (trailer === undefined) return {};
  for (const [number, any] of fields(trailer)) {
    if (number !== 3) continue;
    const parts = Object.fromEntries(fields(any));
    if (!parts[1].toString().endsWith("/google.rpc.ErrorInfo")) continue;
    const info = { reason: "", metadata: {} };
    for (const [field, value] of fields(parts[2])) {
      if (field === 1) info.reason = value.toString();
      if (field === 3) {
        const entry = Object.fromEntries(fields(value));
        info.metadata[entry[1].toString()] = (entry[2] ?? "").toString();
      }
    }
    return info;
  }
  return {};
}

async function main([address, model, rows, seed, where = "[]"]) {
  if (seed === undefined) {
    console.error("usage: node sample.mjs ADDRESS MODEL ROWS SEED [WHERE_JSON]");
    return 2;
  }
  check(existsSync(PROTOS), `there are no protos at ${PROTOS}; name their folder in ROWMINT_PROTOS`);
  const { SamplingService } = load("rowmint/v1/sampling_service.proto");
  const client = new SamplingService(address, grpc.credentials.createInsecure(), {
    "grpc.max_receive_message_length": 16 * 1024 * 1024,
  });
  const request = { model, rows, seed, where: { predicates: JSON.parse(where) }, format: "ROW_FORMAT_COLUMNS" };
  try {
    const call = client.Sample(request, { deadline: Date.now() + 120000 });
    console.log(JSON.stringify(await readStream(call)));
    return 0;
  } catch (error) {
    if (error.code === undefined) throw error;
    const { code, details } = error;
    console.log(JSON.stringify({ error: { code: grpc.status[code], message: details, ...errorInfo(error) } }));
    return 1;
  } finally {
    client.close();
  }
}

process.exitCode = await main(process.argv.slice(2));
