//===- Bundle.cpp - opens and checks bundles ------------------------------===//
#include "isthmus/runtime/Bundle.h"

#include "GraphCheck.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/KernelABI.h"

#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>

using namespace isthmus;
using namespace isthmus::rt;

Bundle::Bundle(const std::filesystem::path &path) : file(path) {
  file.preferHugePages();
  const std::string where = path.string();
  BundleHeader header;
  auto bytes = file.bytes();
  if (bytes.size() < sizeof(header))
    throw Error("{}: not a bundle: {} bytes are too few", where, bytes.size());
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, "ISTHMUS", 8) != 0)
    throw Error("{}: not a bundle (no magic 'ISTHMUS'); make one with "
                "'isthmus compile'",
                where);
  if (header.version != kBundleVersion)
    throw Error("{}: bundle format {} is not supported, this program reads {}; "
                "compile the model again",
                where, header.version, kBundleVersion);
  if (header.fileSize != bytes.size())
    throw Error("{}: truncated or damaged: {} bytes, the header says {}", where,
                bytes.size(), header.fileSize);
  auto manifest =
      file.slice(header.manifestOffset, header.manifestSize, "manifest");
  std::vector<std::byte> message(bytes.begin(),
                                 bytes.begin() + kSignedHeaderBytes);
  message.insert(message.end(), manifest.begin(), manifest.end());
  std::memcpy(key.data(), header.publicKey, key.size());
  Signature signature;
  std::memcpy(signature.data(), header.signature, signature.size());
  if (!verifySignature(key, message, signature))
    throw Error(
        "{}: the signature does not match: the bundle is damaged or was "
        "changed",
        where);
  if (manifest.size() > (1u << 30) ||
      !content.ParseFromArray(manifest.data(), int(manifest.size())))
    throw Error("{}: the manifest cannot be parsed", where);
  checkManifest(where, content, bytes.size());
}

std::span<const std::byte> Bundle::blob(uint32_t index) const {
  const bundle::Blob &blob = content.blobs(int(index));
  return file.bytes().subspan(blob.offset(), blob.size());
}

std::span<const std::byte> Bundle::weight(uint32_t index) const {
  const bundle::Weight &weight = content.weights(int(index));
  return blob(weight.blob()).subspan(weight.offset(), weight.size());
}

void Bundle::requireTrust(const KeyStore &keys) const {
  if (!keys.trusts(key))
    throw Error(
        "{}: signed by {}, whom you do not trust. A bundle holds native "
        "code; if you know where it comes from: isthmus trust {}",
        path().string(), toHex(key), path().string());
}

void Bundle::verify(std::span<const Range> ranges, unsigned threads) const {
  std::set<std::pair<uint32_t, uint64_t>> unique;
  for (const Range &range : ranges) {
    if (range.size == 0)
      continue;
    uint64_t chunkBytes = content.blobs(int(range.blob)).chunk_bytes();
    uint64_t last = (range.offset + range.size - 1) / chunkBytes;
    for (uint64_t chunk = range.offset / chunkBytes; chunk <= last; ++chunk)
      unique.emplace(range.blob, chunk);
  }
  std::vector<std::pair<uint32_t, uint64_t>> chunks(unique.begin(),
                                                    unique.end());
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::string damage;
  auto work = [&] {
    for (size_t i; (i = next++) < chunks.size();) {
      auto [index, chunk] = chunks[i];
      const bundle::Blob &info = content.blobs(int(index));
      auto bytes = blob(index);
      uint64_t first = chunk * info.chunk_bytes();
      auto part = bytes.subspan(
          first, std::min<uint64_t>(info.chunk_bytes(), bytes.size() - first));
      Digest digest = sha256(part);
      const std::string &expected = info.chunk_sha256(int(chunk));
      if (std::memcmp(digest.data(), expected.data(), digest.size()) == 0)
        continue;
      std::lock_guard lock(mutex);
      damage =
          fmt::format("{}: '{}' is damaged between bytes {} and {} of the "
                      "file; compile the model again or fetch a fresh copy",
                      path().string(), info.name(), info.offset() + first,
                      info.offset() + first + part.size());
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (unsigned t = 1; t < threads; ++t)
      helpers.emplace_back(work);
    work();
  }
  if (!damage.empty())
    throw Error(damage);
}

//===----------------------------------------------------------------------===//
// Manifest
//===----------------------------------------------------------------------===//

namespace {
class ManifestChecker {
public:
  ManifestChecker(const std::string &where, const bundle::Manifest &m)
      : where(where), m(m) {}

  void run(uint64_t fileSize) {
    for (const auto &blob : m.blobs())
      checkBlob(blob, fileSize);
    for (const auto &kernels : m.kernels())
      need(index(kernels.blob(), m.blobs()), "kernel library's blob");
    for (const auto &block : m.templates())
      checkTemplate(block);
    for (const auto &weight : m.weights())
      checkWeight(weight);
    for (const auto &program : m.programs())
      checkProgram(program);
    for (const auto &link : m.links())
      need(index(link.a(), m.devices()) && index(link.b(), m.devices()),
           "link's device");
    for (const auto &plan : m.plans())
      checkPlan(plan);
    need(m.programs_size() > 0 && m.plans_size() > 0 && m.devices_size() > 0,
         "programs, plans and devices");
    if (m.has_tokenizer())
      need(index(m.tokenizer().blob(), m.blobs()) &&
               index(m.tokenizer().vocabulary(), m.blobs()),
           "tokenizer's blobs");
    for (const auto *ids : {&m.tokenizer().prefix(), &m.tokenizer().suffix()})
      for (uint32_t id : *ids)
        need(id <= uint32_t(INT32_MAX), "tokenizer's prefix or suffix");
  }

private:
  const std::string &where;
  const bundle::Manifest &m;

  void need(bool condition, std::string_view what) const {
    if (!condition)
      throw Error("{}: inconsistent manifest: {} out of range", where, what);
  }
  static bool index(uint64_t i, const auto &list) {
    return i < uint64_t(list.size());
  }

  void checkBlob(const bundle::Blob &blob, uint64_t fileSize) const {
    need(blob.offset() % kBundleAlignment == 0 && blob.offset() <= fileSize &&
             blob.size() <= fileSize - blob.offset(),
         "blob '" + blob.name() + "'");
    need(blob.chunk_bytes() >= 4096 && blob.chunk_bytes() <= (1u << 30),
         "chunk size");
    uint64_t chunks =
        (blob.size() + blob.chunk_bytes() - 1) / blob.chunk_bytes();
    need(uint64_t(blob.chunk_sha256_size()) == chunks, "number of digests");
    for (const std::string &digest : blob.chunk_sha256())
      need(digest.size() == 32, "size of a digest");
  }

  void checkTemplate(const bundle::Template &block) const {
    need(index(block.output(), block.buffers()), "template's output");
    need(!block.has_input() || block.buffers_size() > 0, "template's input");
    for (const auto &buffer : block.buffers())
      need(buffer.row_bytes() > 0 && buffer.row_bytes() <= (1u << 28) &&
               bundle::RowKind_IsValid(buffer.rows()),
           "buffer size");
    for (const auto &launch : block.launches()) {
      need(size_t(launch.operands_size()) <= kMaxOperands, "operand count");
      need(launch.tiles() > 0 && launch.tiles() <= (1u << 30), "tiles");
      need(launch.rows_per_tile() <= (1u << 16), "rows of a tile");
      need(launch.scratch_bytes() <= (1u << 28), "scratch");
      need(bundle::RowKind_IsValid(launch.rows()) &&
               bundle::Steps_IsValid(launch.steps()),
           "row kind or steps");
      need(!launch.replicate() || launch.operands_size() > 0, "replicate");
      for (const auto &operand : launch.operands()) {
        switch (operand.kind()) {
        case bundle::Operand::BUFFER:
          need(index(operand.index(), block.buffers()), "operand's buffer");
          break;
        case bundle::Operand::WEIGHT:
          need(operand.index() < block.weights(), "operand's weight");
          break;
        case bundle::Operand::STATE:
          need(block.kv_page_bytes() > 0, "operand's state");
          break;
        default:
          need(false, "operand kind");
        }
      }
    }
    need(block.kv_page_bytes() <= (1u << 30), "page size");
  }

  void checkWeight(const bundle::Weight &weight) const {
    need(index(weight.blob(), m.blobs()), "weight's blob");
    uint64_t size = m.blobs(int(weight.blob())).size();
    need(weight.offset() % 64 == 0 && weight.offset() <= size &&
             weight.size() <= size - weight.offset(),
         "weight '" + weight.name() + "'");
  }

  void checkProgram(const bundle::Program &program) const {
    if (program.has_graph()) {
      const char *error = findGraphError(m, program.graph());
      need(!error, error ? error : "");
      return need(program.calls_size() == 0, "calls");
    }
    need(program.calls_size() > 0, "calls");
    const uint64_t features = program.input_features();
    need(program.context_length() > 0 && program.context_length() < (1u << 30),
         "context length");
    need((program.vocab_size() > 0) != (features > 0) &&
             program.vocab_size() < (1u << 30) && features < (1u << 26),
         "vocabulary or input features");
    const uint64_t outputs = outputFeatures(program);
    need(outputs > 0 && (program.task() != bundle::GENERATE ||
                         outputs == program.vocab_size()),
         "output features");
    need(bundle::Task_IsValid(program.task()) &&
             bundle::ResultRow_IsValid(program.result_row()),
         "task or result row");
    need(program.labels_size() == 0 ||
             uint64_t(program.labels_size()) == outputs,
         "labels");
    if (program.has_image())
      checkImage(program);
    const bundle::Buffer *previous = nullptr;
    for (const auto &call : program.calls()) {
      need(index(call.template_(), m.templates()), "call's template");
      const auto &block = m.templates(int(call.template_()));
      need(uint32_t(call.weights_size()) == block.weights(), "call's weights");
      for (uint32_t weight : call.weights())
        need(index(weight, m.weights()), "call's weight");
      need(call.state() >= -1 && call.state() < program.calls_size() &&
               (call.state() >= 0) == (block.kv_page_bytes() > 0),
           "call's state");
      need(block.has_input() == (previous != nullptr || features > 0),
           "first call");
      if (!previous)
        need(features == 0 || (block.buffers(0).row_bytes() >= features * 4 &&
                               block.buffers(0).rows() == bundle::TOKENS),
             "program's input");
      else
        need(previous->row_bytes() == block.buffers(0).row_bytes() &&
                 previous->rows() == block.buffers(0).rows(),
             "call's input");
      previous = &block.buffers(int(block.output()));
    }
    need(previous->rows() == bundle::OUTPUTS &&
             previous->row_bytes() >= outputs * 4,
         "program's output");
  }

  void checkImage(const bundle::Program &program) const {
    const bundle::ImageInput &image = program.image();
    const uint64_t size = image.size(), patch = image.patch();
    constexpr uint64_t kLargest = 1 << 14;
    need(
        patch > 0 && size <= kLargest && size > 0 && size % patch == 0 &&
            (image.shortest_edge() == 0 || (image.shortest_edge() >= size &&
                                            image.shortest_edge() <= kLargest)),
        "image's size");
    need(program.input_features() == 3 * patch * patch &&
             program.context_length() ==
                 size / patch * (size / patch) + image.class_token(),
         "image's patches");
    need(image.mean_size() == 3 && image.deviation_size() == 3 &&
             bundle::ImageInput::Filter_IsValid(image.filter()),
         "image's scaling");
  }

  void checkPlan(const bundle::Plan &plan) const {
    need(index(plan.program(), m.programs()), "plan's program");
    // A graph is one stage, which has no calls.
    const bool graph = m.programs(int(plan.program())).has_graph();
    need(!graph || plan.stages_size() == 1, "graph's stages");
    uint64_t next = 0;
    for (const auto &stage : plan.stages()) {
      need(index(stage.device(), m.devices()), "stage's device");
      need(stage.first_call() == next && (stage.calls() > 0) != graph,
           "stage's calls");
      next += stage.calls();
    }
    need(next == uint64_t(m.programs(int(plan.program())).calls_size()),
         "plan's calls");
  }
};
} // namespace

void rt::checkManifest(const std::string &where,
                       const bundle::Manifest &manifest, uint64_t fileSize) {
  ManifestChecker(where, manifest).run(fileSize);
}
