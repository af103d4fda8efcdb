// Graphs of tensors: what a manifest may say, and operators that the runtime
// has.
#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/HostOperators.h"

#include <functional>
#include <gtest/gtest.h>

using namespace isthmus;
using namespace isthmus::rt;

namespace {
/// y = Relu(x + c), where c is a constant of two floats.
bundle::Manifest graphManifest() {
  bundle::Manifest m;
  bundle::Blob *blob = m.add_blobs();
  blob->set_size(64);
  blob->set_chunk_bytes(4096);
  blob->add_chunk_sha256(std::string(32, 'x'));
  m.add_weights()->set_size(8);
  bundle::Graph *graph = m.add_programs()->mutable_graph();
  for (int i = 0; i < 4; ++i) {
    bundle::GraphValue *value = graph->add_values();
    value->set_type(uint32_t(DataType::F32));
    value->set_ranked(true);
    value->add_sizes(2);
  }
  graph->add_constants()->set_value(1);
  bundle::GraphBody *body = graph->mutable_body();
  body->add_inputs(0);
  body->add_outputs(3);
  bundle::GraphNode *add = body->add_nodes(), *relu = body->add_nodes();
  for (bundle::GraphNode *node : {add, relu}) {
    node->set_shape_function("s");
    node->set_kernel("k");
  }
  add->add_inputs(0);
  add->add_inputs(1);
  add->add_outputs(2);
  relu->add_inputs(2);
  relu->add_outputs(3);
  relu->add_last_uses(2);
  m.add_devices();
  m.add_plans()->add_stages();
  return m;
}

void expectRefused(const char *what,
                   const std::function<void(bundle::Graph &)> &change) {
  bundle::Manifest m = graphManifest();
  change(*m.mutable_programs(0)->mutable_graph());
  try {
    checkManifest("test", m, 1 << 20);
    ADD_FAILURE() << "not refused: " << what;
  } catch (const Error &error) {
    EXPECT_NE(std::string(error.what()).find(what), std::string::npos)
        << error.what();
  }
}
} // namespace

TEST(GraphTest, ManifestsAreChecked) {
  EXPECT_NO_THROW(checkManifest("test", graphManifest(), 1 << 20));
  expectRefused("operand", [](bundle::Graph &g) {
    g.mutable_body()->mutable_nodes(0)->set_inputs(0, 4);
  });
  expectRefused("operand", [](bundle::Graph &g) {
    g.mutable_body()->mutable_nodes(0)->set_outputs(0, -2);
  });
  expectRefused("last use", [](bundle::Graph &g) {
    g.mutable_body()->mutable_nodes(1)->set_last_uses(0, 99);
  });
  expectRefused("input or output",
                [](bundle::Graph &g) { g.mutable_body()->set_outputs(0, 4); });
  expectRefused("constant's weight",
                [](bundle::Graph &g) { g.mutable_values(1)->set_sizes(0, 3); });
  expectRefused("constant's size", [](bundle::Graph &g) {
    g.mutable_values(1)->set_sizes(0, -1);
  });
  expectRefused("value's type",
                [](bundle::Graph &g) { g.mutable_values(0)->set_type(99); });
  expectRefused("first input", [](bundle::Graph &g) {
    bundle::GraphNode *node = g.mutable_body()->mutable_nodes(1);
    node->clear_kernel();
    node->set_inputs(0, -1);
  });
  expectRefused("depth", [](bundle::Graph &g) {
    bundle::GraphNode *node = g.mutable_body()->mutable_nodes(0);
    for (int i = 0; i < 100; ++i)
      node = node->add_bodies()->add_nodes();
  });
}

namespace {
Tensor texts(std::vector<std::string> values) {
  Tensor tensor = Tensor::allocate(DataType::String, {int64_t(values.size())});
  *tensor.texts = std::move(values);
  return tensor;
}

Value runHost(const char *op, std::vector<Value> inputs,
              const bundle::GraphNode &node = {}) {
  HostCall call{
      node, std::move(inputs), std::vector<Value>(1), {DataType::String}, {}};
  findHostOperator(op)(call);
  return call.outputs[0];
}
} // namespace

TEST(GraphTest, HostOperators) {
  EXPECT_EQ(findHostOperator("Conv"), nullptr);
  Value joined = runHost("StringConcat", {texts({"a", "b"}), texts({"c"})});
  EXPECT_EQ(*joined.needTensor().texts, (std::vector<std::string>{"ac", "bc"}));
  EXPECT_THROW(
      runHost("StringConcat", {texts({"a", "b"}), texts({"", "", ""})}), Error);
  Value list = runHost("SequenceConstruct", {texts({"a"}), texts({"b"})});
  EXPECT_EQ(list.needSequence().size(), 2u);
  Tensor index = Tensor::allocate(DataType::I64, {});
  *index.as<int64_t>() = -1;
  EXPECT_EQ((*runHost("SequenceAt", {list, index}).needTensor().texts)[0], "b");
  *index.as<int64_t>() = 2;
  EXPECT_THROW(runHost("SequenceAt", {list, index}), Error);
  EXPECT_THROW(runHost("SequenceAt", {texts({"a"}), index}), Error);
  EXPECT_THROW(runHost("OptionalGetElement", {Value()}), Error);
  bundle::GraphNode cast;
  cast.add_attributes()->set_name("to");
  cast.mutable_attributes(0)->add_integers(int64_t(DataType::F32));
  EXPECT_EQ(runHost("Cast", {texts({"1.5"})}, cast).needTensor().as<float>()[0],
            1.5f);
  EXPECT_THROW(runHost("Cast", {texts({"1.5x"})}, cast), Error);
}

TEST(GraphTest, TensorsHaveAMostSize) {
  EXPECT_THROW(Tensor::allocate(DataType::F32, {int64_t(1) << 40, 1 << 20}),
               Error);
  EXPECT_THROW(Tensor::allocate(DataType::F32, {-1}), Error);
  EXPECT_EQ(Tensor::allocate(DataType::F32, {0, 5}).count(), 0);
}

TEST(GraphTest, MemoryIsGivenAgain) {
  TensorMemory memory;
  const std::byte *first;
  {
    Tensor tensor = Tensor::allocate(DataType::F32, {1000}, memory);
    first = tensor.data.get();
    EXPECT_EQ(uintptr_t(first) % 64, 0u);
  }
  EXPECT_EQ(memory.take(3000).get(), first);
  // Not for what is much smaller. (Addresses prove nothing: the system may give
  // one that just came back.)
  {
    const size_t before = memory.heldBytes();
    const auto small = memory.take(100);
    EXPECT_NE(memory.heldBytes(), before);
  }
  // Never more than was in use at once.
  const size_t most = memory.heldBytes();
  for (size_t bytes = 64; bytes < 4000; bytes += 64)
    memory.take(bytes);
  EXPECT_LE(memory.heldBytes(), std::max(most, size_t(4096)));
  // Tensors may stay longer.
  Tensor kept = Tensor::allocate(DataType::F32, {4}, memory);
  memory = TensorMemory();
  kept.as<float>()[3] = 1;
}
