// A client made of the protos alone, in C++: uploads a table, fits a model of it, samples rows.
//
//     rowmint-client upload TRAINER DATASET FILE PRIMARY_KEY
//     rowmint-client train TRAINER JOB DATASET MODEL SEED
//     rowmint-client sample SAMPLER,SAMPLER... MODEL ROWS SEED FORMAT COLUMN TEXT OUTPUT
//
// DATASET, JOB and MODEL are full names, "projects/{project}/datasets/{dataset}" and so on; FORMAT is csv, ndjson or
// arrow; the rows are those whose COLUMN equals TEXT. Each command breaks its own stream off in the middle and goes on
// with it, the last one at the next sampler, so it shows how a client outlives a broken connection. Each prints lines
// of a word and what belongs to it. A failed call is told on the error stream, with its reason; the status is then 1.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "checksums.h"
#include "failure.h"
#include "rowmint/v1/dataset_service.grpc.pb.h"
#include "rowmint/v1/sampling_service.grpc.pb.h"
#include "rowmint/v1/training_service.grpc.pb.h"

namespace v1 = rowmint::v1;
using Arguments = std::vector<std::string>;

namespace {

constexpr std::size_t kChunkBytes = 32 * 1024;  // a message may have 2 MiB
constexpr int kMessageBytes = 16 * 1024;        // the smallest there is: a short stream, too, has a middle
constexpr auto kPatience = std::chrono::seconds(120);

std::shared_ptr<grpc::Channel> channel_to(const std::string& address) {
  return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
}

void limit(grpc::ClientContext& context) { context.set_deadline(std::chrono::system_clock::now() + kPatience); }

// Cuts "projects/p/datasets/d" into "projects/p" and "d".
std::pair<std::string, std::string> parent_and_id(const std::string& name) {
  const auto last = name.rfind('/');
  const auto kind = last == std::string::npos ? last : name.rfind('/', last - 1);
  expect(kind != std::string::npos && last > 0, "'" + name + "' is no name of the form projects/{project}/{kind}/{id}");
  return {name.substr(0, kind), name.substr(last + 1)};
}

v1::Dataset get_dataset(v1::DatasetService::Stub& datasets, const std::string& name) {
  grpc::ClientContext context;
  limit(context);
  v1::GetDatasetRequest request;
  request.set_name(name);
  v1::Dataset dataset;
  expect_ok(datasets.GetDataset(&context, request, &dataset));
  return dataset;
}

void wait_until(const std::string& otherwise, const std::function<bool()>& holds) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!holds()) {
    expect(std::chrono::steady_clock::now() < end, otherwise + " within two minutes");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// Sends the bytes from `start` to `end`, which may be fewer than all: then the stream is broken off.
void write_bytes(v1::DatasetService::Stub& datasets, const std::string& name, const std::string& bytes,
                 std::size_t start, std::size_t end) {
  grpc::ClientContext context;
  limit(context);
  v1::WriteDatasetResponse response;
  auto writer = datasets.WriteDataset(&context, &response);
  for (std::size_t offset = start;; offset += kChunkBytes) {
    v1::WriteDatasetRequest message;
    message.set_name(name);
    message.set_write_offset(static_cast<std::int64_t>(offset));
    if (offset < end) {
      const auto chunk = bytes.substr(offset, std::min(kChunkBytes, end - offset));
      message.set_crc32c(crc32c(chunk));
      message.set_data(chunk);
    }
    const bool last = end == bytes.size() && offset + kChunkBytes >= end;
    if (last) {
      message.mutable_finish_write()->set_total_size(static_cast<std::int64_t>(bytes.size()));
      message.mutable_finish_write()->set_sha256(sha256(bytes));
    }
    // A refused message ends the stream: its status says why.
    if (!writer->Write(message) || last) break;
    if (offset + kChunkBytes >= end) {
      wait_until("no byte of " + name + " is committed",
                 [&] { return get_dataset(datasets, name).committed_size() > 0; });
      context.TryCancel();
      writer->Finish();
      return;
    }
  }
  writer->WritesDone();
  expect_ok(writer->Finish());
  expect(response.dataset().name() == name, "the answer tells of another dataset");
}

void upload(const Arguments& arguments) {
  const std::string &name = arguments.at(1), &file = arguments.at(2);
  std::ifstream input(file, std::ios::binary);
  expect(input.good(), "cannot read " + file);
  const std::string bytes((std::istreambuf_iterator<char>(input)), std::istreambuf_iterator<char>());
  const auto datasets = v1::DatasetService::NewStub(channel_to(arguments.at(0)));
  v1::CreateDatasetRequest request;
  const auto [parent, id] = parent_and_id(name);
  request.set_parent(parent);
  request.set_dataset_id(id);
  request.mutable_dataset()->mutable_format()->mutable_csv();
  request.mutable_dataset()->set_primary_key(arguments.at(3));
  grpc::ClientContext context;
  limit(context);
  v1::Dataset dataset;
  expect_ok(datasets->CreateDataset(&context, request, &dataset));

  write_bytes(*datasets, name, bytes, 0, bytes.size() / 2);
  dataset = get_dataset(*datasets, name);
  expect(dataset.state() == v1::DATASET_STATE_UPLOADING, "a broken upload is not waited for");
  auto committed = static_cast<std::size_t>(dataset.committed_size());
  try {
    write_bytes(*datasets, name, bytes, committed, bytes.size());
  } catch (const CallFailed& refused) {
    // What the broken stream had still under way may be committed after one has asked: the refusal says how much.
    if (refused.reason() != "WRITE_OFFSET") throw;
    committed = std::stoull(refused.fact("committed_size"));
    write_bytes(*datasets, name, bytes, committed, bytes.size());
  }
  std::cout << "committed " << committed << '\n';

  wait_until(name + " is not read", [&] {
    dataset = get_dataset(*datasets, name);
    return dataset.state() != v1::DATASET_STATE_INGESTING;
  });
  for (const auto& error : dataset.errors()) std::cout << "fault " << error.line() << ' ' << error.message() << '\n';
  std::cout << "state " << v1::DatasetState_Name(dataset.state()) << "\nrows " << dataset.row_count() << "\nsha256 "
            << hex(dataset.sha256()) << '\n';
}

// Prints a job's events after number `known`, at most `most` of them; returns the number of the last one.
std::int64_t watch(v1::TrainingService::Stub& training, const std::string& name, std::int64_t known, int most) {
  grpc::ClientContext context;
  limit(context);
  v1::WatchTrainingJobRequest request;
  request.set_name(name);
  request.set_after_sequence(known);
  auto reader = training.WatchTrainingJob(&context, request);
  v1::TrainingEvent event;
  for (int seen = 0; seen < most; ++seen) {
    if (!reader->Read(&event)) {
      expect_ok(reader->Finish());
      return known;
    }
    expect(event.sequence() == known + 1, "an event is missing or comes twice");
    known = event.sequence();
    std::cout << "event " << known << ' ' << v1::JobState_Name(event.state()) << ' '
              << v1::JobPhase_Name(event.phase()) << '\n';
  }
  context.TryCancel();
  reader->Finish();
  return known;
}

void train(const Arguments& arguments) {
  const std::string& name = arguments.at(1);
  const auto training = v1::TrainingService::NewStub(channel_to(arguments.at(0)));
  v1::CreateTrainingJobRequest request;
  const auto [parent, id] = parent_and_id(name);
  request.set_parent(parent);
  request.set_training_job_id(id);
  request.mutable_training_job()->set_dataset(arguments.at(2));
  request.mutable_training_job()->set_model(arguments.at(3));
  auto* config = request.mutable_training_job()->mutable_config();
  config->mutable_independent();
  config->set_seed(std::stoull(arguments.at(4)));
  grpc::ClientContext context;
  limit(context);
  v1::CreateTrainingJobResponse created;
  expect_ok(training->CreateTrainingJob(&context, request, &created));

  const auto known = watch(*training, name, 0, 1);
  std::cout << "broken off after event " << known << '\n';
  watch(*training, name, known, 1'000'000);
  grpc::ClientContext asking;
  limit(asking);
  v1::GetTrainingJobRequest query;
  query.set_name(name);
  v1::TrainingJob job;
  expect_ok(training->GetTrainingJob(&asking, query, &job));
  std::cout << "state " << v1::JobState_Name(job.state()) << "\nversion " << job.model_version() << '\n';
}

// A logical stream of rows, put together from several calls.
struct Rows {
  v1::SampleRequest request;
  v1::SampleHeader header;
  std::string bytes;
  std::int64_t next = 0;
  bool complete = false;

  // Makes one call for what is missing; breaks it off once `enough` rows of the stream are here.
  void read_from(const std::string& sampler, std::int64_t enough) {
    const auto sampling = v1::SamplingService::NewStub(channel_to(sampler));
    grpc::ClientContext context;
    limit(context);
    auto reader = sampling->Sample(&context, request);
    v1::SampleResponse response;
    while (next < enough && reader->Read(&response)) take(response);
    if (next >= enough) {
      context.TryCancel();
      reader->Finish();
      return;
    }
    expect_ok(reader->Finish());
    expect(complete, "the stream was cut: it ended without a summary, or before its end");
  }

  // Asks from here on for the rest of this very stream.
  void go_on() {
    request.set_model(header.model_version());
    request.set_seed(header.seed());
    request.set_expected_model_digest(header.model_digest());
    request.set_expected_plan_digest(header.plan_digest());
    request.set_start_row(next);
    request.set_framing(v1::FRAMING_RESUME);
    request.set_received_bytes(static_cast<std::int64_t>(bytes.size()));
  }

 private:
  void take(const v1::SampleResponse& response) {
    if (response.has_header()) {
      const auto& found = response.header();
      if (header.model_digest().empty()) header = found;
      expect(found.model_version() == header.model_version() && found.model_digest() == header.model_digest() &&
                 found.plan_digest() == header.plan_digest() && found.seed() == header.seed(),
             "the stream that was gone on with is another one");
      expect(found.start_row() == next, "the stream begins at another row");
    } else if (response.has_data()) {
      const auto& data = response.data();
      expect(data.first_row() == next, "rows are missing or come twice");
      expect(crc32c(data.data()) == data.crc32c(), "bytes do not match their crc32c");
      bytes += data.data();
      next += data.row_count();
    } else if (response.has_summary()) {
      complete = response.summary().complete() && next == request.rows();
    }
  }
};

void sample(const Arguments& arguments) {
  Arguments samplers;
  std::stringstream list(arguments.at(0));
  for (std::string address; std::getline(list, address, ',');) samplers.push_back(address);
  const std::string& format = arguments.at(4);
  Rows rows;
  rows.request.set_model(arguments.at(1));
  rows.request.set_rows(std::stoll(arguments.at(2)));
  rows.request.set_seed(std::stoull(arguments.at(3)));
  rows.request.set_format(format == "csv"      ? v1::ROW_FORMAT_CSV
                          : format == "ndjson" ? v1::ROW_FORMAT_NDJSON
                                               : v1::ROW_FORMAT_ARROW_STREAM);
  rows.request.set_message_bytes(kMessageBytes);
  auto* predicate = rows.request.mutable_where()->add_predicates();
  predicate->set_column(arguments.at(5));
  predicate->mutable_equals()->set_string_value(arguments.at(6));

  rows.read_from(samplers.front(), std::max<std::int64_t>(1, rows.request.rows() / 2));
  std::cout << "version " << rows.header.model_version() << "\nmodel " << hex(rows.header.model_digest()) << "\nplan "
            << hex(rows.header.plan_digest()) << "\nseed " << rows.header.seed() << "\nbroken off at row " << rows.next
            << '\n';
  rows.go_on();
  rows.read_from(samplers.back(), rows.request.rows() + 1);
  std::ofstream output(arguments.at(7), std::ios::binary);
  output << rows.bytes;
  output.close();
  expect(output.good(), "cannot write " + arguments.at(7));
  std::cout << "rows " << rows.next << '\n';
}

}  // namespace

int main(int count, char** values) {
  const Arguments words(values + 1, values + count);
  struct Command {
    std::string name;
    std::size_t arguments;
    std::function<void(const Arguments&)> run;
  };
  const std::vector<Command> commands = {{"upload", 4, upload}, {"train", 5, train}, {"sample", 8, sample}};
  try {
    for (const auto& command : commands) {
      if (words.empty() || words[0] != command.name || words.size() != command.arguments + 1) continue;
      command.run(Arguments(words.begin() + 1, words.end()));
      return 0;
    }
    std::cerr << "usage: rowmint-client upload|train|sample ARGUMENTS; the head of main.cpp tells them\n";
    return 2;
  } catch (const CallFailed& failed) {
    failed.describe(std::cerr);
  } catch (const std::exception& failed) {
    std::cerr << "failed " << failed.what() << '\n';
  }
  return 1;
}
