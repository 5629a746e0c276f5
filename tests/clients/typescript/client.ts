// Streams rows as NDJSON with code that `buf generate` made of the protos, over gRPC.
//
//     node compiled/client.js ADDRESS MODEL ROWS SEED COLUMN TEXT
//
// Writes the rows whose COLUMN equals TEXT; a failed call's code and reason go to the error stream, with status 1.
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { RowFormat, SampleRequestSchema } from "./gen/ts/rowmint/v1/sampling_pb.ts";
import { SamplingService } from "./gen/ts/rowmint/v1/sampling_service_pb.ts";

async function* sample(address: string, model: string, rows: bigint, seed: bigint, column: string, text: string) {
  const client = createClient(SamplingService, createGrpcTransport({ baseUrl: `http://${address}` }));
  const test = { case: "equals" as const, value: { kind: { case: "stringValue" as const, value: text } } };
  const where = { predicates: [{ column, test }] };
  const request = create(SampleRequestSchema, { model, rows, seed, where, format: RowFormat.NDJSON });
  let complete = false;
  for await (const { message } of client.sample(request)) {
    if (message.case === "data") yield message.value.data;
    if (message.case === "summary") complete = message.value.complete;
  }
  if (!complete) throw new Error("the stream was cut");
}

const [address, model, rows, seed, column, text] = process.argv.slice(2);
if (!address || !model || !rows || !seed || !column || !text) {
  throw new Error("usage: node compiled/client.js ADDRESS MODEL ROWS SEED COLUMN TEXT");
}
try {
  for await (const data of sample(address, model, BigInt(rows), BigInt(seed), column, text)) process.stdout.write(data);
} catch (error) {
  if (!(error instanceof ConnectError)) throw error;
  console.error(`${Code[error.code]}: ${error.rawMessage}`);
  process.exitCode = 1;
}
