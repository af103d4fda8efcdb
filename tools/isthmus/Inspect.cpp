//===- Inspect.cpp - 'isthmus inspect' and 'isthmus trust' ----------------===//
#include "Commands.h"
#include "Graphs.h"

#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/Linker.h"
#include "isthmus/runtime/ThreadPool.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace isthmus;
using nlohmann::json;

namespace {
/// What a program takes and gives.
json describe(const bundle::Program &program) {
  if (program.has_graph()) {
    const bundle::Graph &graph = program.graph();
    auto list = [&](const auto &numbers) {
      std::vector<std::string> values;
      for (uint32_t number : numbers) {
        const bundle::GraphValue &value = graph.values(int(number));
        values.push_back(value.name() + ": " + cli::typeText(value));
      }
      return fmt::format("{}", fmt::join(values, ", "));
    };
    return {{"name", program.name()},
            {"takes", list(graph.body().inputs())},
            {"gives", list(graph.body().outputs())},
            {"nodes", graph.body().nodes_size()}};
  }
  std::string takes = fmt::format(
      "up to {} tokens of {}", program.context_length(), program.vocab_size());
  if (program.has_image())
    takes = fmt::format("an image of {0} x {0} pixels in {1} rows of {2}",
                        program.image().size(), program.context_length(),
                        program.input_features());
  const char *gives = program.task() == bundle::GENERATE ? "the next token"
                      : program.task() == bundle::EMBED  ? "an embedding"
                                                         : "classes";
  return {{"name", program.name()},
          {"takes", takes},
          {"gives", gives},
          {"output_features", rt::outputFeatures(program)}};
}

json describe(const rt::Bundle &bundle, unsigned threads) {
  const bundle::Manifest &m = bundle.manifest();
  json out = {{"bundle", bundle.path().string()},
              {"model", m.model()},
              {"architecture", m.architecture()},
              {"signer", rt::toHex(bundle.signer())},
              {"trusted", rt::KeyStore().trusts(bundle.signer())}};
  for (const auto &kernels : m.kernels())
    out["kernels"].push_back({{"target", kernels.target()},
                              {"schedule", kernels.schedule()},
                              {"bytes", m.blobs(int(kernels.blob())).size()}});
  std::map<std::string, std::pair<uint64_t, uint64_t>> formats;
  for (const auto &weight : m.weights()) {
    formats[weight.format()].first++;
    formats[weight.format()].second += weight.size();
  }
  for (const auto &[format, count] : formats)
    out["weights"].push_back({{"format", format},
                              {"tensors", count.first},
                              {"bytes", count.second}});
  for (const auto &block : m.templates()) {
    json kernels = json::array();
    for (const auto &launch : block.launches())
      kernels.push_back(launch.kernel());
    out["templates"].push_back({{"name", block.name()}, {"kernels", kernels}});
  }
  for (const auto &program : m.programs())
    out["programs"].push_back(describe(program));
  for (const auto &plan : m.plans()) {
    if (m.programs(int(plan.program())).has_graph())
      continue; // one device, whose memory follows from the sizes of a run
    json stages = json::array();
    for (int i = 0; i < plan.stages_size(); ++i) {
      const auto &stage = plan.stages(i);
      rt::LinkedStage linked = rt::linkStage(m, plan, i, {});
      const auto &device = m.devices(int(stage.device()));
      uint64_t peak = linked.peakBytes(plan.context_tokens(), threads);
      stages.push_back(
          {{"device", device.name()},
           {"first_call", stage.first_call()},
           {"calls", stage.calls()},
           {"launches", linked.launches.size()},
           {"weight_bytes", linked.weightBytes},
           {"activation_bytes", linked.arenaBytes},
           {"kv_bytes", peak - linked.weightBytes - linked.arenaBytes -
                            linked.scratchBytes * threads},
           {"peak_bytes", peak},
           {"budget_bytes", device.memory_bytes()}});
    }
    out["plans"].push_back({{"name", plan.name()},
                            {"program", m.programs(int(plan.program())).name()},
                            {"context_tokens", plan.context_tokens()},
                            {"stages", stages}});
  }
  for (const auto &blob : m.blobs())
    out["blobs"].push_back(
        {{"name", blob.name()},
         {"bytes", blob.size()},
         {"chunks", blob.chunk_sha256_size()},
         {"first_sha256", blob.chunk_sha256_size()
                              ? rt::toHex({reinterpret_cast<const uint8_t *>(
                                               blob.chunk_sha256(0).data()),
                                           32})
                              : ""}});
  return out;
}

double mb(const json &bytes) { return bytes.get<double>() / 1e6; }

void print(const json &d) {
  fmt::print("{} ({}), signed by {}{}\n", d["model"].get<std::string>(),
             d["architecture"].get<std::string>(),
             d["signer"].get<std::string>().substr(0, 16),
             d["trusted"] ? "" : " (not trusted)");
  for (const json &k : d["kernels"])
    fmt::print("  kernels   {:<22} {:8.2f} MB\n            {}\n",
               k["target"].get<std::string>(), mb(k["bytes"]),
               k["schedule"].get<std::string>());
  for (const json &w : d.value("weights", json::array()))
    fmt::print("  weights   {:<5} {:4} tensors     {:8.1f} MB\n",
               w["format"].get<std::string>(), w["tensors"].get<int>(),
               mb(w["bytes"]));
  for (const json &t : d.value("templates", json::array()))
    fmt::print("  block     {:<10} {} launches\n", t["name"].get<std::string>(),
               t["kernels"].size());
  for (const json &p : d["programs"])
    if (p.contains("nodes"))
      fmt::print(
          "  graph     {:<10} {} nodes\n            takes {}\n            "
          "gives {}\n",
          p["name"].get<std::string>(), p["nodes"].get<int>(),
          p["takes"].get<std::string>(), p["gives"].get<std::string>());
    else
      fmt::print("  program   {:<10} takes {}, gives {} ({} values)\n",
                 p["name"].get<std::string>(), p["takes"].get<std::string>(),
                 p["gives"].get<std::string>(),
                 p["output_features"].get<int>());
  for (const json &plan : d.value("plans", json::array())) {
    fmt::print("  plan '{}' of '{}' for {} tokens of context\n",
               plan["name"].get<std::string>(),
               plan["program"].get<std::string>(),
               plan["context_tokens"].get<int>());
    int total = 0;
    for (const json &s : plan["stages"])
      total += s["calls"].get<int>();
    for (const json &s : plan["stages"]) {
      // The run of blocks as a bar over the whole model.
      int first = s["first_call"], calls = s["calls"];
      std::string bar;
      for (int i = 0; i < total; ++i)
        bar += i >= first && i < first + calls ? "#" : ".";
      fmt::print("    {:<10} [{}] blocks {}-{}: weights {:.1f}, activations "
                 "{:.1f}, KV {:.1f}, peak {:.1f} of {:.1f} MB\n",
                 s["device"].get<std::string>(), bar, first, first + calls - 1,
                 mb(s["weight_bytes"]), mb(s["activation_bytes"]),
                 mb(s["kv_bytes"]), mb(s["peak_bytes"]), mb(s["budget_bytes"]));
    }
  }
  for (const json &b : d["blobs"])
    fmt::print("  blob      {:<28} {:8.1f} MB in {} chunks, sha256 {}...\n",
               b["name"].get<std::string>(), mb(b["bytes"]),
               b["chunks"].get<int>(),
               b["first_sha256"].get<std::string>().substr(0, 12));
}
} // namespace

void cli::addInspect(CLI::App &app) {
  struct Options {
    std::string bundle;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "inspect", "Show what a bundle holds: devices, blocks, kernels, memory, "
                 "digests\n\nExample:\n  isthmus inspect smol.isth\n");
  command->add_option("BUNDLE", o->bundle, "a bundle")->required();
  command->add_flag("--json", o->json, "print JSON");
  command->callback([o] {
    json description =
        describe(rt::Bundle(o->bundle), rt::ThreadPool::availableProcessors());
    if (o->json)
      fmt::print("{}\n", description.dump());
    else
      print(description);
  });
}

void cli::addTrust(CLI::App &app) {
  auto path = std::make_shared<std::string>();
  CLI::App *command = app.add_subcommand(
      "trust",
      "Trust the key that signed a bundle, so that its kernels may run "
      "here\n\nExample:\n  isthmus trust downloaded.isth\n");
  command->add_option("BUNDLE", *path, "a bundle")->required();
  command->callback([path] {
    rt::Bundle bundle(*path);
    rt::KeyStore keys;
    keys.trust(bundle.signer());
    fmt::print("bundles signed by {} may now run here\n",
               rt::toHex(bundle.signer()));
  });
}
