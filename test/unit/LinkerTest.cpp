#include "isthmus/runtime/Linker.h"
#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

using namespace isthmus;
using namespace isthmus::rt;

namespace {
/// embed -> layer x 3 -> head, with temporaries of different lives.
bundle::Manifest makeManifest() {
  bundle::Manifest m;
  auto *blob = m.add_blobs();
  blob->set_name("weights");
  blob->set_size(64 * 5);
  blob->set_chunk_bytes(1 << 20);
  blob->add_chunk_sha256(std::string(32, 'x'));
  for (int i = 0; i < 5; ++i) {
    auto *weight = m.add_weights();
    weight->set_name("w" + std::to_string(i));
    weight->set_offset(uint64_t(i) * 64);
    weight->set_size(64);
  }
  auto addBuffer = [](bundle::Template *t, uint64_t bytes,
                      bundle::RowKind rows) {
    auto *b = t->add_buffers();
    b->set_row_bytes(bytes);
    b->set_rows(rows);
  };
  auto launch = [](bundle::Template *t, const char *kernel,
                   std::vector<uint32_t> buffers, bool wait) {
    auto *l = t->add_launches();
    l->set_kernel(kernel);
    l->set_tiles(1);
    l->set_wait(wait);
    for (uint32_t b : buffers) {
      auto *o = l->add_operands();
      o->set_kind(bundle::Operand::BUFFER);
      o->set_index(b);
    }
    auto *w = l->add_operands();
    w->set_kind(bundle::Operand::WEIGHT);
  };
  auto *embed = m.add_templates();
  embed->set_name("embed");
  addBuffer(embed, 128, bundle::TOKENS);
  embed->set_weights(1);
  launch(embed, "e", {0}, true);
  auto *layer = m.add_templates();
  layer->set_name("layer");
  layer->set_has_input(true);
  layer->set_output(1);
  layer->set_weights(1);
  layer->set_kv_page_bytes(4096);
  for (uint64_t bytes : {128, 128, 256, 256, 256})
    addBuffer(layer, bytes, bundle::TOKENS);
  launch(layer, "a", {0, 2}, true); // phase 1: 2
  launch(layer, "b", {2, 3}, true); // phase 2: 2, 3
  launch(layer, "c", {3, 4}, true); // phase 3: 3, 4
  launch(layer, "d", {4, 1}, true); // phase 4: 4
  auto *head = m.add_templates();
  head->set_name("head");
  head->set_has_input(true);
  head->set_output(1);
  head->set_weights(1);
  addBuffer(head, 128, bundle::TOKENS);
  addBuffer(head, 400, bundle::OUTPUTS);
  launch(head, "h", {0, 1}, true);

  auto *program = m.add_programs();
  program->set_context_length(128);
  program->set_vocab_size(100);
  for (uint32_t i = 0; i < 5; ++i) {
    auto *call = program->add_calls();
    call->set_template_(i == 0 ? 0 : i == 4 ? 2 : 1);
    call->add_weights(i);
    call->set_state(i == 0 || i == 4 ? -1 : int32_t(i) - 1);
  }
  m.add_devices()->set_name("a");
  m.add_devices()->set_name("b");
  return m;
}

bundle::Plan makePlan(std::vector<uint32_t> counts) {
  bundle::Plan plan;
  uint32_t first = 0, device = 0;
  for (uint32_t count : counts) {
    auto *stage = plan.add_stages();
    stage->set_device(device++);
    stage->set_first_call(first);
    stage->set_calls(count);
    first += count;
  }
  return plan;
}
} // namespace

TEST(Linker, OneStageRunsEverything) {
  bundle::Manifest m = makeManifest();
  *m.add_plans() = makePlan({5});
  checkManifest("test", m, 1 << 20);
  LinkedStage s = linkStage(m, m.plans(0), 0, {8, 4});
  EXPECT_EQ(s.launches.size(), 1u + 3 * 4 + 1);
  EXPECT_FALSE(s.hasInput);
  EXPECT_EQ(s.weightBytes, 5u * 64);
  EXPECT_EQ(s.states.size(), 3u);
  EXPECT_EQ(s.pageBytes, 3u * 4096);
  EXPECT_EQ(s.output.rowBytes, 400u);
  // Two slots of the largest value between calls, and the temporaries: three of
  // 256 bytes, of which two are alive at once.
  uint64_t slot = 1600; // 4 rows of 400 bytes, a multiple of 64
  EXPECT_EQ(s.arenaBytes, 2 * slot + 2 * 8 * 256);
  // A cache has whole groups of pages.
  const uint64_t group = kPartitionPages * s.pageBytes;
  EXPECT_EQ(s.peakBytes(1, 2), s.weightBytes + s.arenaBytes + group);
  EXPECT_EQ(s.peakBytes(kPartitionPositions + 1, 2),
            s.weightBytes + s.arenaBytes + 2 * group);
}

TEST(Linker, AnotherCutFromTheSameTemplates) {
  bundle::Manifest m = makeManifest();
  for (const auto &counts : {std::vector<uint32_t>{2, 3}, {1, 4}, {4, 1}}) {
    bundle::Plan plan = makePlan(counts);
    LinkedStage first = linkStage(m, plan, 0, {8, 4});
    LinkedStage second = linkStage(m, plan, 1, {8, 4});
    EXPECT_EQ(first.launches.size() + second.launches.size(), 14u);
    EXPECT_TRUE(second.hasInput);
    EXPECT_EQ(second.input.rowBytes, first.output.rowBytes);
    EXPECT_EQ(first.weights.size() + second.weights.size(), 5u);
    EXPECT_EQ(first.states.size() + second.states.size(), 3u);
  }
}

TEST(Linker, OverlappingLaunchesKeepTheirMemory) {
  bundle::Manifest m = makeManifest();
  // Without barriers all launches of a layer are one phase: nothing is shared.
  for (auto &launch : *m.mutable_templates(1)->mutable_launches())
    launch.set_wait(false);
  LinkedStage s = linkStage(m, makePlan({5}), 0, {8, 4});
  EXPECT_EQ(s.arenaBytes, 2 * 1600u + 3 * 8 * 256);
}

TEST(Linker, SmallStepsHaveTheirOwnBarriersAndBuffers) {
  bundle::Manifest m = makeManifest();
  auto *layer = m.mutable_templates(1);
  // "a" works row by row: in small steps every thread does it for itself, and
  // "b" waits for nobody. "d" belongs to large steps alone.
  layer->mutable_launches(0)->set_replicate(true);
  layer->mutable_buffers(2)->set_per_thread(true);
  layer->mutable_launches(1)->set_wait_large_only(true);
  layer->mutable_launches(3)->set_steps(bundle::LARGE);
  *m.add_plans() = makePlan({5});
  checkManifest("test", m, 1 << 20);
  LinkedStage large = linkStage(m, m.plans(0), 0, {64, 4}, Regime::Large);
  LinkedStage small = linkStage(m, m.plans(0), 0, {64, 4}, Regime::Small);
  EXPECT_EQ(large.launches.size(), 14u);
  EXPECT_EQ(small.launches.size(), 11u);
  EXPECT_FALSE(large.launches[1].replicate);
  EXPECT_TRUE(small.launches[1].replicate);
  EXPECT_TRUE(large.launches[2].wait);
  EXPECT_FALSE(small.launches[2].wait);
  EXPECT_TRUE(small.launches[1].wait); // the first of a call always does
  using Kind = LinkedOperand::Kind;
  EXPECT_EQ(large.launches[1].operands[1].kind, Kind::Arena);
  EXPECT_EQ(small.launches[1].operands[1].kind, Kind::Private);
  EXPECT_EQ(small.launches[2].operands[0].kind, Kind::Private);
  // Input and output lie at the same place, memory is planned for both.
  EXPECT_EQ(small.output.offset, large.output.offset);
  EXPECT_EQ(large.privateBytes, small.privateBytes);
  EXPECT_EQ(small.privateBytes, kSmallStepRows * 256);
  EXPECT_LE(small.arenaBytes, large.arenaBytes);
}

TEST(Linker, CallsMayShareAState) {
  bundle::Manifest m = makeManifest();
  const uint64_t apart = linkStage(m, makePlan({5}), 0, {64, 4}).pageBytes;
  for (auto &call : *m.mutable_programs(0)->mutable_calls())
    if (call.state() >= 0)
      call.set_state(0);
  LinkedStage stage = linkStage(m, makePlan({5}), 0, {64, 4});
  EXPECT_EQ(stage.states.size(), 1u);
  EXPECT_EQ(apart, 3 * 4096u);
  EXPECT_EQ(stage.pageBytes, 4096u);
}

TEST(Manifest, ChecksProgramsThatTakeValues) {
  auto check = [](auto change) {
    bundle::Manifest m = makeManifest();
    // The embedding takes rows of values: an image of 2 x 2 patches.
    auto *embed = m.mutable_templates(0);
    embed->set_has_input(true);
    embed->set_output(1);
    *embed->add_buffers() = embed->buffers(0);
    embed->mutable_buffers(0)->set_row_bytes(64);
    auto *program = m.mutable_programs(0);
    program->set_vocab_size(0);
    program->set_task(bundle::EMBED);
    program->set_output_features(100);
    program->set_input_features(12);
    program->set_context_length(5);
    auto *image = program->mutable_image();
    image->set_size(4);
    image->set_patch(2);
    image->set_class_token(true);
    for (int i = 0; i < 3; ++i) {
      image->add_mean(0);
      image->add_deviation(1);
    }
    *m.add_plans() = makePlan({5});
    change(m, *image);
    checkManifest("test", m, 1 << 20);
  };
  EXPECT_NO_THROW(check([](auto &, auto &) {}));
  auto rejects = [&](auto change) { EXPECT_THROW(check(change), Error); };
  rejects([](auto &, auto &image) { image.set_patch(0); });
  rejects([](auto &, auto &image) { image.set_patch(3); });
  rejects([](auto &, auto &image) { image.set_size(8); });
  rejects([](auto &, auto &image) { image.set_class_token(false); });
  rejects([](auto &, auto &image) { image.set_shortest_edge(3); });
  rejects([](auto &, auto &image) { image.add_mean(0); });
  rejects([](auto &, auto &image) {
    image.set_filter(bundle::ImageInput::Filter(9));
  });
  rejects(
      [](auto &m, auto &) { m.mutable_programs(0)->set_input_features(17); });
  rejects([](auto &m, auto &) { m.mutable_programs(0)->set_vocab_size(9); });
  rejects([](auto &m, auto &) {
    m.mutable_programs(0)->set_task(bundle::GENERATE);
  });
  rejects([](auto &m, auto &) { m.mutable_programs(0)->add_labels("one"); });
  rejects([](auto &m, auto &) {
    m.mutable_programs(0)->set_result_row(bundle::ResultRow(5));
  });
}

TEST(Manifest, RejectsIndicesOutOfRange) {
  auto rejects = [](auto change) {
    bundle::Manifest m = makeManifest();
    *m.add_plans() = makePlan({5});
    change(m);
    EXPECT_THROW(checkManifest("test", m, 1 << 20), Error);
  };
  rejects([](auto &m) { m.mutable_blobs(0)->set_size(1ull << 40); });
  rejects([](auto &m) { m.mutable_blobs(0)->set_offset(~0ull << 12); });
  rejects([](auto &m) { m.mutable_weights(0)->set_offset(~0ull - 63); });
  rejects([](auto &m) { m.mutable_weights(0)->set_blob(7); });
  rejects([](auto &m) { m.mutable_templates(1)->set_output(9); });
  rejects([](auto &m) {
    m.mutable_templates(1)->mutable_launches(0)->mutable_operands(0)->set_index(
        9);
  });
  rejects([](auto &m) {
    m.mutable_programs(0)->mutable_calls(1)->set_template_(9);
  });
  rejects([](auto &m) {
    m.mutable_programs(0)->mutable_calls(1)->set_weights(0, 9);
  });
  rejects(
      [](auto &m) { m.mutable_programs(0)->mutable_calls(1)->set_state(-1); });
  rejects([](auto &m) { m.mutable_programs(0)->set_output_features(1000); });
  rejects([](auto &m) { m.mutable_plans(0)->mutable_stages(0)->set_calls(4); });
  rejects(
      [](auto &m) { m.mutable_plans(0)->mutable_stages(0)->set_device(9); });
  rejects([](auto &m) { m.clear_plans(); });
  rejects([](auto &m) {
    m.mutable_templates(1)->mutable_launches(0)->set_rows_per_tile(1u << 20);
  });
  rejects([](auto &m) {
    m.mutable_templates(1)->mutable_launches(0)->set_steps(bundle::Steps(7));
  });
}
