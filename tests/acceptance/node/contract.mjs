// What every client needs of the contract: its services, its checksums, and what a failed call says.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = process.env.ROWMINT_PROTOS ?? fileURLToPath(new URL("../../../protos", import.meta.url));
// The contract imports google/api/annotations.proto, which protobufjs brings along.
const GOOGLE_APIS = dirname(createRequire(import.meta.url).resolve("protobufjs/package.json"));

/** A message of rows has up to 1 MiB, or one grid cell of rows that are longer. */
export const SERVER_LIMITS = { "grpc.max_receive_message_length": 16 * 1024 * 1024 };

/** Loads a file of the contract; 64-bit integers become text, fields keep the names they have there. */
export function load(file) {
  check(existsSync(PROTOS), `there are no protos at ${PROTOS}; name their folder in ROWMINT_PROTOS`);
  const includeDirs = [PROTOS, GOOGLE_APIS];
  const options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true, includeDirs };
  return grpc.loadPackageDefinition(protoLoader.loadSync(file, options)).rowmint.v1;
}

class ProtocolError extends Error {}

/** Throws where what was received is not what the contract says. */
export function check(holds, message) {
  if (!holds) throw new ProtocolError(message);
}

const CRC32C = new Uint32Array(256).map((_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value;
});

/** CRC-32C (Castagnoli) of some bytes, as RFC 3720 has it. */
export function crc32c(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = (value >>> 8) ^ CRC32C[(value ^ byte) & 0xff];
  return (value ^ 0xffffffff) >>> 0;
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
export function errorInfo(error) {
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

/** Makes a call that has one answer. */
export function call(client, method, request) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 60000;
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

/** Waits until `holds` says so, for two minutes at most. */
export async function until(holds, otherwise) {
  const end = Date.now() + 120000;
  while (!(await holds())) {
    check(Date.now() < end, `${otherwise} within two minutes`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * Runs a program: prints what it returns as one line of JSON, or {"error": {code, message, reason, metadata}} of a call
 * that failed, with which it ends with status 1.
 */
export async function run(main, least, usage) {
  const words = process.argv.slice(2);
  if (words.length < least) {
    console.error(`usage: ${usage}`);
    process.exitCode = 2;
    return;
  }
  try {
    console.log(JSON.stringify(await main(words)));
  } catch (error) {
    if (error.code === undefined) throw error;
    const { code, details } = error;
    console.log(JSON.stringify({ error: { code: grpc.status[code], message: details, ...errorInfo(error) } }));
    process.exitCode = 1;
  }
}
