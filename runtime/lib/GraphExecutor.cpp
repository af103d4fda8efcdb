//===- GraphExecutor.cpp - runs a graph of tensors ------------------------===//
#include "isthmus/runtime/GraphExecutor.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <chrono>
#include <exception>

using namespace isthmus;
using namespace isthmus::rt;

namespace isthmus::rt {

/// Nodes are short, and gaps between them shorter: who has looked so often, for
/// some microseconds, lets others run.
static constexpr int kSpins = 4096;

/// The threads that share the tiles of one node after another, while one of
/// them leads from node to node.
class TileTeam {
public:
  explicit TileTeam(ThreadPool &pool) : pool(pool), scratch(pool.size()) {}

  /// Runs `job` on this thread; within it, `run` has all threads.
  void lead(const std::function<void()> &job) {
    std::exception_ptr failure;
    stopping = false;
    leading = pool.size() > 1;
    pool.runHelped([&](unsigned thread) {
      if (thread != 0)
        return follow(thread);
      try {
        job();
      } catch (...) {
        failure = std::current_exception();
      }
      stopping.store(true, std::memory_order_release);
    });
    leading = false;
    if (failure)
      std::rethrow_exception(failure);
  }

  void run(GraphKernel kernel, GraphArgs &args) {
    const int64_t tiles = args.tiles;
    const auto bytes = size_t(args.scratchBytes);
    const bool alone = tiles < 2 || !leading;
    for (size_t t = 0; t < (alone ? 1 : scratch.size()); ++t)
      if (scratch[t].size() < bytes)
        scratch[t].resize(bytes + 64);
    if (alone) {
      if (tiles > 0)
        kernel(&args, 0, tiles, memory(0));
      return;
    }
    current = kernel;
    currentArgs = &args;
    // A few pieces a thread, so that a slow one does not hold the rest.
    grain = std::max<int64_t>(1, tiles / (int64_t(pool.size()) * 8));
    pieces = uint32_t((tiles + grain - 1) / grain);
    unfinished.store(pieces, std::memory_order_relaxed);
    node += uint64_t(1) << 32;
    ticket.store(node | pieces, std::memory_order_release);
    work(0);
    // Only for who has begun: a thread that the system has put to sleep takes
    // no piece, and nobody waits for it.
    for (int spin = 0; unfinished.load(std::memory_order_acquire); ++spin)
      if (spin > kSpins)
        std::this_thread::yield();
  }

private:
  std::byte *memory(unsigned thread) {
    auto address = reinterpret_cast<uintptr_t>(scratch[thread].data());
    return scratch[thread].data() + (64 - address % 64) % 64;
  }

  /// Takes pieces until there are none. What they are of does not change as
  /// long as one is unfinished.
  void work(unsigned thread) {
    for (uint64_t seen = ticket.load(std::memory_order_acquire);
         uint32_t(seen) != 0;) {
      if (!ticket.compare_exchange_weak(seen, seen - 1,
                                        std::memory_order_acq_rel,
                                        std::memory_order_acquire))
        continue;
      const int64_t begin = int64_t(pieces - uint32_t(seen)) * grain;
      current(currentArgs, begin,
              std::min<int64_t>(begin + grain, currentArgs->tiles),
              memory(thread));
      unfinished.fetch_sub(1, std::memory_order_release);
      seen = ticket.load(std::memory_order_acquire);
    }
  }

  /// Until there has been nothing to do for a while.
  void follow(unsigned thread) {
    for (int spin = 0;
         spin < kSpins && !stopping.load(std::memory_order_acquire); ++spin)
      if (uint32_t(ticket.load(std::memory_order_acquire)) != 0) {
        work(thread);
        spin = 0;
      }
  }

  ThreadPool &pool;
  std::vector<std::vector<std::byte>> scratch; ///< a thread each
  GraphKernel current = nullptr;
  GraphArgs *currentArgs = nullptr;
  int64_t grain = 1;
  bool leading = false;
  std::atomic<bool> stopping = false;
  uint32_t pieces = 0; ///< of the node
  uint64_t node = 0;   ///< which one, in the upper half
  /// The node, and in the lower half its pieces that nobody has taken.
  alignas(64) std::atomic<uint64_t> ticket = 0;
  alignas(64) std::atomic<uint32_t> unfinished = 0;
};

} // namespace isthmus::rt

//===----------------------------------------------------------------------===//
// Binding
//===----------------------------------------------------------------------===//

static GraphKernel graphKernel(const KernelLibrary &kernels,
                               const std::string &name) {
  return name.empty() ? nullptr
                      : reinterpret_cast<GraphKernel>(kernels.lookup(name));
}

std::vector<GraphExecutor::Node>
GraphExecutor::bind(const bundle::GraphBody &body,
                    const KernelLibrary &kernels) {
  std::vector<Node> result;
  for (const bundle::GraphNode &description : body.nodes()) {
    Node &node = result.emplace_back();
    node.description = &description;
    node.shape = graphKernel(kernels, description.shape_function());
    node.kernel = graphKernel(kernels, description.kernel());
    if (!node.shape && !(node.host = findHostOperator(description.op())))
      throw Error("{}: node '{}' needs the operator {}, which this program "
                  "does not have; use the version that compiled the bundle",
                  bundle.path().string(), description.name(), description.op());
    for (const bundle::GraphBody &inner : description.bodies())
      node.bodies.push_back(bind(inner, kernels));
  }
  return result;
}

GraphExecutor::GraphExecutor(const Bundle &bundle,
                             const bundle::Program &program,
                             const KernelLibrary &kernels, ThreadPool &pool)
    : bundle(bundle), graph(program.graph()),
      nodes(bind(program.graph().body(), kernels)),
      values(size_t(graph.values_size())),
      constant(size_t(graph.values_size())),
      team(std::make_unique<TileTeam>(pool)) {
  for (const bundle::GraphConstant &item : graph.constants()) {
    const bundle::GraphValue &description = graph.values(int(item.value()));
    Tensor tensor;
    tensor.type = DataType(description.type());
    tensor.sizes.assign(description.sizes().begin(), description.sizes().end());
    if (tensor.type == DataType::String) {
      tensor.texts = std::make_shared<std::vector<std::string>>(
          item.texts().begin(), item.texts().end());
    } else {
      // Kernels only read constants; the ABI has one kind of pointer.
      auto bytes = bundle.weight(item.weight());
      tensor.data = {std::shared_ptr<void>(),
                     const_cast<std::byte *>(bytes.data())};
    }
    values[item.value()] = std::move(tensor);
    constant[item.value()] = true;
  }
  for (const Node &node : nodes)
    if (node.description->constant())
      for (int64_t output : node.description->outputs())
        if (output >= 0)
          constant[size_t(output)] = true;
  lead([&] { runNodes(nodes, true); });
}

GraphExecutor::~GraphExecutor() = default;

const bundle::GraphValue &GraphExecutor::input(size_t index) const {
  return graph.values(int(graph.body().inputs(int(index))));
}

const bundle::GraphValue &GraphExecutor::output(size_t index) const {
  return graph.values(int(graph.body().outputs(int(index))));
}

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

static std::string describe(const bundle::GraphValue &value) {
  std::string text(nameOf(DataType(value.type())));
  if (!value.ranked())
    return text;
  text += " [";
  for (int i = 0; i < value.sizes_size(); ++i)
    text += (i ? ", " : "") +
            (value.sizes(i) < 0 ? "?" : std::to_string(value.sizes(i)));
  return text + "]";
}

static bool fits(const bundle::GraphValue &expected, const Tensor &tensor) {
  if (DataType(expected.type()) != tensor.type)
    return false;
  if (!expected.ranked())
    return true;
  if (size_t(expected.sizes_size()) != tensor.sizes.size())
    return false;
  for (int i = 0; i < expected.sizes_size(); ++i)
    if (expected.sizes(i) >= 0 && expected.sizes(i) != tensor.sizes[size_t(i)])
      return false;
  return true;
}

void GraphExecutor::checkType(const bundle::GraphValue &expected,
                              const Value &value) const {
  if (expected.type() == 0)
    return;
  const Tensor *tensor = value.tensor();
  if (tensor && fits(expected, *tensor))
    return;
  throw Error("'{}' must be {}, got {}", expected.name(), describe(expected),
              tensor ? fmt::format("{} [{}]", nameOf(tensor->type),
                                   fmt::join(tensor->sizes, ", "))
                     : "no tensor");
}

void GraphExecutor::lead(const std::function<void()> &job) { team->lead(job); }

std::vector<Value> GraphExecutor::run(std::span<const Value> inputs) {
  const bundle::GraphBody &body = graph.body();
  if (inputs.size() != this->inputs())
    throw Error("{} inputs for a graph that takes {}", inputs.size(),
                this->inputs());
  for (size_t i = 0; i < inputs.size(); ++i) {
    checkType(input(i), inputs[i]);
    values[body.inputs(int(i))] = inputs[i];
  }
  std::vector<Value> results;
  lead([&] { runNodes(nodes, false); });
  for (uint32_t output : body.outputs())
    results.push_back(values[output]);
  for (size_t i = 0; i < values.size(); ++i)
    if (!constant[i])
      values[i] = {};
  return results;
}

void GraphExecutor::runNodes(std::span<Node> list, bool constants) {
  for (Node &node : list) {
    // Those of bodies are never marked.
    if (node.description->constant() != constants)
      continue;
    auto start = std::chrono::steady_clock::now();
    try {
      runNode(node);
    } catch (const Error &error) {
      throw Error("node '{}' ({}): {}", node.description->name(),
                  node.description->op(), error.what());
    }
    if (onNode)
      onNode(*node.description, std::chrono::duration<double>(
                                    std::chrono::steady_clock::now() - start)
                                    .count());
    for (uint32_t value : node.description->last_uses())
      if (!constant[value])
        values[value] = {};
  }
}

void GraphExecutor::runNode(Node &node) {
  if (node.shape)
    runKernel(node);
  else
    runHost(node);
}

static const char *describe(int64_t error) {
  switch (error) {
  case kGraphIndex:
    return "an index lies outside of the tensor it points into";
  case kGraphValue:
    return "an input has a value that the operator does not take";
  default:
    return "the sizes of its inputs do not fit one another";
  }
}

void GraphExecutor::runKernel(Node &node) {
  const bundle::GraphNode &description = *node.description;
  const auto inputs = size_t(description.inputs_size()),
             outputs = size_t(description.outputs_size());
  std::vector<GraphOperand> operands(inputs + outputs, GraphOperand{});
  for (size_t i = 0; i < inputs; ++i) {
    int64_t number = description.inputs(int(i));
    if (number < 0)
      continue;
    const Value &value = values[size_t(number)];
    // The types of kernels are fixed: what comes out of a body or a sequence is
    // checked here.
    checkType(graph.values(int(number)), value);
    const Tensor &tensor = value.needTensor();
    operands[i] = {tensor.data.get(),
                   const_cast<int64_t *>(tensor.sizes.data())};
  }
  std::vector<Tensor> results(outputs);
  for (size_t i = 0; i < outputs; ++i) {
    int64_t number = description.outputs(int(i));
    if (number < 0)
      continue;
    const bundle::GraphValue &value = graph.values(int(number));
    results[i].type = DataType(value.type());
    results[i].sizes.assign(size_t(value.sizes_size()), 0);
    operands[inputs + i].sizes = results[i].sizes.data();
  }
  GraphArgs args{0, 0, kGraphOk, operands.data()};
  auto check = [&] {
    if (args.error != kGraphOk)
      throw Error("{}", describe(args.error));
  };
  node.shape(&args, 0, 1, nullptr);
  check();
  for (size_t i = 0; i < outputs; ++i) {
    if (description.outputs(int(i)) < 0)
      continue;
    Tensor &result = results[i];
    if (!fits(graph.values(int(description.outputs(int(i)))), result))
      throw Error("its result has sizes [{}], and the model says {}",
                  fmt::join(result.sizes, ", "),
                  describe(graph.values(int(description.outputs(int(i))))));
    if (!node.kernel) {
      const Tensor &source = values[size_t(description.inputs(0))].needTensor();
      if (result.count() != source.count())
        throw Error("sizes [{}] do not hold its {} elements",
                    fmt::join(result.sizes, ", "), source.count());
      result.data = source.data;
      result.texts = source.texts;
      continue;
    }
    result = Tensor::allocate(result.type, std::move(result.sizes), memory);
    operands[inputs + i] = {result.data.get(), result.sizes.data()};
  }
  if (node.kernel) {
    team->run(node.kernel, args);
    check();
  }
  for (size_t i = 0; i < outputs; ++i)
    if (description.outputs(int(i)) >= 0)
      values[size_t(description.outputs(int(i)))] = std::move(results[i]);
}

void GraphExecutor::runHost(Node &node) {
  const bundle::GraphNode &description = *node.description;
  HostCall call{description, {}, {}, {}, {}};
  for (int64_t number : description.inputs())
    call.inputs.push_back(number < 0 ? Value() : values[size_t(number)]);
  call.outputs.resize(size_t(description.outputs_size()));
  for (int64_t number : description.outputs())
    call.outputTypes.push_back(
        number < 0 ? DataType::Undefined
                   : DataType(graph.values(int(number)).type()));
  call.runBody = [&](size_t index, std::span<const Value> inputs) {
    const bundle::GraphBody &body = description.bodies(int(index));
    if (inputs.size() != size_t(body.inputs_size()))
      throw Error("its body takes {} inputs, got {}", body.inputs_size(),
                  inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i)
      values[body.inputs(int(i))] = inputs[i];
    runNodes(node.bodies[index], false);
    std::vector<Value> results;
    for (uint32_t output : body.outputs())
      results.push_back(values[output]);
    return results;
  };
  node.host(call);
  for (size_t i = 0; i < call.outputs.size(); ++i)
    if (int64_t number = description.outputs(int(i)); number >= 0) {
      checkType(graph.values(int(number)), call.outputs[i]);
      values[size_t(number)] = std::move(call.outputs[i]);
    }
}
