//===- Worker.cpp - a device's part of a model as a process ---------------===//
#include "isthmus/runtime/Worker.h"

#include "isthmus/runtime/Error.h"
#include "wire.pb.h"

#include <cstring>

using namespace isthmus;
using namespace isthmus::rt;

namespace {
constexpr uint32_t kWireVersion = 1;
/// A worker loads and checks its weights before it answers a Hello.
constexpr double kHelloSeconds = 120, kStepSeconds = 120, kConnectSeconds = 15;

void sendMessage(Channel &channel, const google::protobuf::MessageLite &message,
                 std::span<const std::byte> payload = {}) {
  std::string text;
  message.SerializeToString(&text);
  auto size = uint32_t(text.size());
  const std::span<const std::byte> parts[] = {
      std::as_bytes(std::span(&size, 1)), std::as_bytes(std::span(text)),
      payload};
  channel.send(parts);
}

/// Parses a frame; returns what follows the message.
std::span<const std::byte>
parseMessage(const Channel &channel, std::span<const std::byte> frame,
             google::protobuf::MessageLite &message) {
  uint32_t size = 0;
  if (frame.size() >= sizeof(size))
    std::memcpy(&size, frame.data(), sizeof(size));
  if (frame.size() < sizeof(size) || size > frame.size() - sizeof(size) ||
      !message.ParseFromArray(frame.data() + sizeof(size), int(size)))
    throw Error("{}: sent a malformed message", channel.peer());
  return frame.subspan(sizeof(size) + size);
}

std::string bundleSignature(const Bundle &bundle) {
  MappedFile file(bundle.path());
  auto header = file.slice(0, sizeof(BundleHeader), "header");
  return {reinterpret_cast<const char *>(header.data()) + kSignedHeaderBytes,
          64};
}

void toWire(const StepBatch &batch, wire::Step &step) {
  step.mutable_ids()->Assign(batch.ids.begin(), batch.ids.end());
  step.mutable_positions()->Assign(batch.positions.begin(),
                                   batch.positions.end());
  step.mutable_sequence()->Assign(batch.sequence.begin(), batch.sequence.end());
  step.mutable_page_tables()->Assign(batch.pageTables.begin(),
                                     batch.pageTables.end());
  step.set_page_stride(batch.pageStride);
  for (const StepBatch::Output &output : batch.outputs) {
    wire::Output *o = step.add_outputs();
    o->set_row(output.row);
    o->set_target(output.target);
    o->set_temperature(output.sampling.temperature);
    o->set_top_p(output.sampling.topP);
    o->set_top_k(output.sampling.topK);
    o->set_seed(output.sampling.seed);
  }
}

void fromWire(const wire::Step &step, StepBatch &batch) {
  batch.ids.assign(step.ids().begin(), step.ids().end());
  batch.positions.assign(step.positions().begin(), step.positions().end());
  batch.sequence.assign(step.sequence().begin(), step.sequence().end());
  batch.pageTables.assign(step.page_tables().begin(), step.page_tables().end());
  batch.pageStride = step.page_stride();
  batch.outputs.clear();
  for (const wire::Output &o : step.outputs())
    batch.outputs.push_back(
        {o.row(),
         o.target(),
         {o.temperature(), o.top_p(), o.top_k(), o.seed()}});
}

/// Connects to the next worker of a chain and introduces ourselves.
std::unique_ptr<Channel> greet(const std::string &address,
                               const std::string &cluster,
                               const wire::Hello &hello) {
  auto channel = connect(parseAddress(address), cluster, kConnectSeconds);
  sendMessage(*channel, hello);
  std::vector<std::byte> frame;
  channel->receive(frame, kHelloSeconds);
  wire::Reply reply;
  parseMessage(*channel, frame, reply);
  if (!reply.error().empty())
    throw Error("{}: {}", address, reply.error());
  return channel;
}

/// Steps of encoders are not spoken between processes yet.
void requireGenerates(const bundle::Program &program) {
  if (program.task() != bundle::GENERATE)
    throw Error(
        "program '{}' makes embeddings or classes, which workers do not "
        "run yet; run it in one process, without --worker",
        program.name());
}

/// One coordinator's session on a worker.
class WorkerSession {
public:
  WorkerSession(Channel &upstream, const Bundle &bundle,
                const WorkerOptions &options)
      : upstream(upstream), bundle(bundle), options(options), library(bundle),
        pool(options.threads ? options.threads
                             : ThreadPool::availableProcessors()) {}

  void run() {
    std::vector<std::byte> frame;
    upstream.receive(frame);
    wire::Reply welcome;
    try {
      wire::Hello hello;
      parseMessage(upstream, frame, hello);
      prepare(hello);
    } catch (const Error &error) {
      welcome.set_error(error.what());
    }
    sendMessage(upstream, welcome);
    if (!welcome.error().empty())
      return;
    while (true) {
      upstream.receive(frame); // throws when the coordinator is gone
      wire::Reply reply;
      try {
        step(frame, reply);
      } catch (const Error &error) {
        reply.Clear();
        reply.set_error(error.what());
      }
      sendMessage(upstream, reply);
    }
  }

private:
  Channel &upstream;
  const Bundle &bundle;
  const WorkerOptions &options;
  KernelLibrary library;
  ThreadPool pool;
  ModelInfo model;
  std::unique_ptr<StageExecutor> executor;
  std::unique_ptr<Channel> downstream;
  StepBatch batch;
  StepResult result;
  StepArrays arrays;
  std::vector<std::byte> replyFrame;
  Sampler sampler;

  void prepare(const wire::Hello &hello) {
    const bundle::Manifest &manifest = bundle.manifest();
    if (hello.version() != kWireVersion)
      throw Error("speaks version {} of the protocol, this worker {}",
                  hello.version(), kWireVersion);
    if (hello.bundle_signature() != bundleSignature(bundle))
      throw Error("this worker holds another bundle; give all the same file");
    if (hello.plan() >= uint32_t(manifest.plans_size()))
      throw Error("the bundle has no plan {}", hello.plan());
    const bundle::Plan &plan = manifest.plans(int(hello.plan()));
    if (hello.stage() >= uint32_t(plan.stages_size()) ||
        hello.stage() + 1 + uint32_t(hello.next_size()) !=
            uint32_t(plan.stages_size()))
      throw Error("the plan has {} stages, and there are {} workers",
                  plan.stages_size(),
                  hello.stage() + 1 + uint32_t(hello.next_size()));
    const auto &stage = plan.stages(int(hello.stage()));
    const auto &device = manifest.devices(int(stage.device()));
    if (!options.device.empty() && device.name() != options.device)
      throw Error("this worker is device '{}', the plan wants '{}' here",
                  options.device, device.name());
    if (hello.max_tokens() == 0 || hello.max_tokens() > 65536 ||
        hello.max_outputs() == 0 || hello.max_outputs() > 65536 ||
        hello.pages() == 0 || hello.pages() > (1u << 24))
      throw Error("asks for impossible limits");
    const bundle::Program &program = manifest.programs(int(plan.program()));
    requireGenerates(program);
    model = describe(program, {hello.max_tokens(), hello.max_outputs()},
                     hello.pages() * uint64_t(kPagePositions));
    LinkedStage linked =
        linkStage(manifest, plan, int(hello.stage()), model.limits);
    uint64_t peak =
        linked.peakBytes(model.pages * uint64_t(kPagePositions), pool.size());
    if (peak > device.memory_bytes())
      throw Error("device '{}' would need {:.1f} MB and has a budget of {:.1f} "
                  "MB; reserve less context (--context)",
                  device.name(), double(peak) / 1e6,
                  double(device.memory_bytes()) / 1e6);
    bundle.verify(weightRanges(manifest, linked), pool.size());
    executor = std::make_unique<StageExecutor>(bundle, library, plan,
                                               int(hello.stage()), model.limits,
                                               model.pages, pool);
    if (hello.next_size() == 0)
      return;
    wire::Hello onward = hello;
    onward.set_stage(hello.stage() + 1);
    onward.mutable_next()->DeleteSubrange(0, 1);
    downstream = greet(hello.next(0), options.cluster, onward);
  }

  void step(std::span<const std::byte> frame, wire::Reply &reply) {
    wire::Step message;
    auto payload = parseMessage(upstream, frame, message);
    fromWire(message, batch);
    StepRows rows = toStepRows(batch, model, arrays);
    const LinkedStage &stage = executor->stage();
    size_t expected =
        stage.hasInput ? stage.input.rowBytes * batch.ids.size() : 0;
    if (payload.size() != expected)
      throw Error("malformed step: {} bytes of activations instead of {}",
                  payload.size(), expected);
    if (expected)
      std::memcpy(executor->input(), payload.data(), expected);
    executor->run(rows);
    if (!downstream) {
      finishStep(batch, executor->output(), stage.output.rowBytes,
                 model.vocabSize, sampler, result);
      reply.mutable_tokens()->Assign(result.tokens.begin(),
                                     result.tokens.end());
      reply.mutable_log_probabilities()->Assign(result.logProbabilities.begin(),
                                                result.logProbabilities.end());
      return;
    }
    sendMessage(*downstream, message,
                {executor->output(), stage.output.rowBytes * batch.ids.size()});
    downstream->receive(replyFrame, kStepSeconds);
    parseMessage(*downstream, replyFrame, reply);
  }
};
} // namespace

void isthmus::rt::serveWorker(Channel &upstream, const Bundle &bundle,
                              const WorkerOptions &options) {
  WorkerSession(upstream, bundle, options).run();
}

RemoteRunner::RemoteRunner(const Bundle &bundle,
                           std::vector<std::string> addresses,
                           const std::string &cluster,
                           const LocalOptions &options)
    : bundle(bundle), addresses(std::move(addresses)), cluster(cluster),
      plan(uint32_t(options.plan)) {
  const bundle::Manifest &manifest = bundle.manifest();
  const bundle::Plan &chosen = manifest.plans(options.plan);
  if (this->addresses.size() != size_t(chosen.stages_size()))
    throw Error("{}: the plan has {} stages, and {} workers were given",
                bundle.path().string(), chosen.stages_size(),
                this->addresses.size());
  const bundle::Program &program = manifest.programs(int(chosen.program()));
  uint64_t positions =
      options.contextTokens ? options.contextTokens : chosen.context_tokens();
  requireGenerates(program);
  model = describe(program, options.limits, positions);
  connectFirst();
}

void RemoteRunner::connectFirst() {
  wire::Hello hello;
  hello.set_version(kWireVersion);
  hello.set_bundle_signature(bundleSignature(bundle));
  hello.set_plan(plan);
  hello.set_stage(0);
  for (size_t i = 1; i < addresses.size(); ++i)
    hello.add_next(addresses[i]);
  hello.set_pages(model.pages);
  hello.set_max_tokens(model.limits.tokens);
  hello.set_max_outputs(model.limits.outputs);
  channel = greet(addresses[0], cluster, hello);
}

void RemoteRunner::run(const StepBatch &batch, StepResult &result) {
  if (!channel)
    connectFirst();
  wire::Reply reply;
  try {
    wire::Step step;
    toWire(batch, step);
    sendMessage(*channel, step);
    channel->receive(frame, kStepSeconds);
    parseMessage(*channel, frame, reply);
  } catch (const Error &error) {
    channel.reset();
    throw Error("a worker is gone: {}", error.what());
  }
  if (!reply.error().empty()) {
    channel.reset(); // the chain behind it may be broken: build it anew
    throw Error("a worker is gone or refused the step: {}", reply.error());
  }
  if (size_t(reply.tokens_size()) != batch.outputs.size() ||
      size_t(reply.log_probabilities_size()) != batch.outputs.size())
    throw Error("{}: answered {} outputs instead of {}", addresses[0],
                reply.tokens_size(), batch.outputs.size());
  result.tokens.assign(reply.tokens().begin(), reply.tokens().end());
  result.logProbabilities.assign(reply.log_probabilities().begin(),
                                 reply.log_probabilities().end());
}
