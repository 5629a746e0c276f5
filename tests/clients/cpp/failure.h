// What a failed call says: its status, and the google.rpc details that come in its trailers.
#pragma once

#include <ostream>
#include <stdexcept>
#include <string>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

// A call that failed.
class CallFailed : public std::runtime_error {
 public:
  explicit CallFailed(const grpc::Status& status)
      : std::runtime_error(status.error_message()), code_(status.error_code()) {
    google::rpc::Status details;
    if (!details.ParseFromString(status.error_details())) return;
    for (const auto& detail : details.details()) {
      if (!detail.UnpackTo(&info_)) detail.UnpackTo(&request_);
    }
  }

  // The reason, a name of ErrorReason without its prefix; empty where the network failed and not the service.
  std::string reason() const { return info_.domain() == "rowmint" ? info_.reason() : ""; }

  // What the reason's metadata says of `key`.
  std::string fact(const std::string& key) const { return info_.metadata().at(key); }

  // Writes one line for the status, one for the reason, one for each of its facts and each field at fault.
  void describe(std::ostream& out) const {
    static const char* const names[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED",
                                        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
                                        "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL",
                                        "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
    out << "status " << (code_ >= 0 && code_ <= 16 ? names[code_] : "?") << ' ' << what() << '\n';
    if (!reason().empty()) out << "reason " << reason() << '\n';
    for (const auto& [key, value] : info_.metadata()) out << "fact " << key << ' ' << value << '\n';
    for (const auto& fault : request_.field_violations()) {
      out << "field " << fault.field() << ' ' << fault.description() << '\n';
    }
  }

 private:
  int code_;
  google::rpc::ErrorInfo info_;
  google::rpc::BadRequest request_;
};

// Throws where a call has failed.
inline void expect_ok(const grpc::Status& status) {
  if (!status.ok()) throw CallFailed(status);
}

// Throws where what was received is not what the contract says.
inline void expect(bool holds, const std::string& otherwise) {
  if (!holds) throw std::runtime_error(otherwise);
}
