//===- Worker.h - a device's part of a model as a process -------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/StepRunner.h"
#include "isthmus/runtime/Transport.h"

#include <string>
#include <vector>

namespace isthmus::rt {

struct WorkerOptions {
  unsigned threads = 0;
  std::string cluster; ///< folder of this cluster member, for tls
  std::string device;  ///< if not empty, the only device of the plan it will be
};

/// Serves one coordinator (or the worker before this one) until it hangs up.
/// Runs the stage the Hello asks for, and passes steps on to the next worker.
/// Problems with a message are answered, not fatal.
void serveWorker(Channel &upstream, const Bundle &bundle,
                 const WorkerOptions &options);

/// Runs steps on workers: `addresses[i]` runs stage i of the plan. Throws Error
/// if one cannot be reached or refuses.
class RemoteRunner : public StepRunner {
public:
  RemoteRunner(const Bundle &bundle, std::vector<std::string> addresses,
               const std::string &cluster, const LocalOptions &options);

  const ModelInfo &info() const override { return model; }
  /// After a failure the next call connects anew.
  void run(const StepBatch &batch, StepResult &result) override;

private:
  void connectFirst();

  const Bundle &bundle;
  std::vector<std::string> addresses;
  std::string cluster;
  uint32_t plan;
  ModelInfo model;
  std::unique_ptr<Channel> channel;
  std::vector<std::byte> frame;
};

} // namespace isthmus::rt
