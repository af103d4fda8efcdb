//===- Encoders.cpp - what makes vectors of texts and images --------------===//
#include "Encoders.h"

#include "Npy.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Image.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <numeric>

using namespace isthmus;
using namespace isthmus::cli;
using nlohmann::json;
using Sequence = rt::Encoder::Sequence;
using Vectors = std::vector<std::vector<float>>;

//===----------------------------------------------------------------------===//
// Encoders
//===----------------------------------------------------------------------===//

bool cli::isGenerator(const rt::Bundle &bundle) {
  return std::ranges::any_of(bundle.manifest().programs(), [](const auto &p) {
    return p.task() == bundle::GENERATE && !p.has_graph();
  });
}

/// The plan of the encoder that takes images, or of the one that takes texts.
static int planOf(const rt::Bundle &bundle, bool takesImages) {
  return rt::findPlan(bundle.manifest(), [&](const bundle::Program &program) {
    return program.task() != bundle::GENERATE && !program.has_graph() &&
           program.has_image() == takesImages;
  });
}

Encoders::Encoders(rt::Bundle given, const SessionOptions &options)
    : bundle(std::move(given)), options(options),
      textPlan(planOf(bundle, false)), imagePlan(planOf(bundle, true)) {
  if (!options.workers.empty())
    throw rt::Error("{}: makes embeddings or classes, which workers do not run "
                    "yet; leave --worker out",
                    bundle.path().string());
}

rt::Encoder &Encoders::open(bool takesImages) {
  std::unique_ptr<rt::Encoder> &encoder = opened[takesImages];
  if (encoder)
    return *encoder;
  rt::LocalOptions local;
  local.threads = options.threads;
  local.limits.outputs = options.outputs;
  local.plan = takesImages ? imagePlan : textPlan;
  if (local.plan < 0)
    throw rt::Error("{}: takes no {}, only {}", bundle.path().string(),
                    takesImages ? "images" : "texts",
                    takesImages ? "texts" : "images");
  encoder = std::make_unique<rt::Encoder>(bundle, local);
  if (!takesImages)
    if (auto loaded = loadTokenizer(bundle))
      tokenizer.emplace(std::move(*loaded));
  return *encoder;
}

rt::Encoder &Encoders::text() { return open(/*takesImages=*/false); }
rt::Encoder &Encoders::image() { return open(/*takesImages=*/true); }

Sequence Encoders::ofText(const std::string &given) {
  text();
  if (!tokenizer)
    throw rt::Error("{}: the bundle has no tokenizer; give ids with --input "
                    "input_ids=FILE.npy",
                    bundle.path().string());
  return {surround(bundle, tokenizer->encode(given)), {}};
}

Sequence Encoders::ofImage(std::span<const std::byte> file,
                           const std::string &where) {
  const bundle::ImageInput &input = image().program().image();
  return {{}, rt::toPatches(rt::decodeImage(file, where), input)};
}

//===----------------------------------------------------------------------===//
// Arrays
//===----------------------------------------------------------------------===//

/// [n][3][height][width], or one image, as the rows of patches.
static std::vector<Sequence> fromPixels(const NpyArray &array,
                                        const std::string &path,
                                        const bundle::ImageInput &input) {
  const size_t size = input.size(), patch = input.patch();
  std::vector<size_t> shape = array.shape;
  if (shape.size() == 3)
    shape.insert(shape.begin(), 1);
  if (array.floats.empty() || shape.size() != 4 ||
      shape != std::vector<size_t>{shape[0], 3, size, size})
    throw rt::Error("{}: pixel_values are f32 [n, 3, {}, {}]", path, size,
                    size);
  std::vector<Sequence> sequences(shape[0]);
  for (size_t n = 0; n < shape[0]; ++n) {
    std::vector<float> &rows = sequences[n].values;
    if (input.class_token())
      rows.resize(3 * patch * patch);
    const double *pixels = &array.floats[n * 3 * size * size];
    for (size_t y = 0; y < size; y += patch)
      for (size_t x = 0; x < size; x += patch)
        for (size_t line = 0; line < 3 * patch; ++line) {
          const size_t channel = line / patch, row = y + line % patch;
          const double *from = pixels + (channel * size + row) * size + x;
          rows.insert(rows.end(), from, from + patch);
        }
  }
  return sequences;
}

/// [n][length], or one sequence.
static std::vector<Sequence> fromIds(const NpyArray &array,
                                     const std::string &path) {
  if (array.integers.empty() || array.shape.size() > 2)
    throw rt::Error("{}: input_ids are i32 or i64 [n, length]", path);
  std::vector<Sequence> sequences(array.shape.size() == 2 ? array.shape[0] : 1);
  const size_t length = array.integers.size() / sequences.size();
  for (size_t i = 0; i < array.integers.size(); ++i) {
    const int64_t id = array.integers[i];
    if (id < 0 || id > INT32_MAX)
      throw rt::Error("{}: {} is no token id", path, id);
    sequences[i / length].ids.push_back(int32_t(id));
  }
  return sequences;
}

//===----------------------------------------------------------------------===//
// 'isthmus run'
//===----------------------------------------------------------------------===//

void EncodeOptions::addTo(CLI::App &app) {
  // Not a vector to CLI11, which would take a text in brackets apart.
  app.add_option_function<std::string>(
         "--text", [this](const std::string &text) { texts.push_back(text); },
         "a text to encode; may come again")
      ->trigger_on_parse();
  app.add_option("--image", images, "a PNG or JPEG to encode; may come again")
      ->check(CLI::ExistingFile);
  app.add_option("--input", inputs,
                 "NAME=FILE.npy: input_ids [n, length] or pixel_values [n, 3, "
                 "size, size]");
  app.add_option("-o,--output", output,
                 "write the vectors, f32 [n, features], as .npy");
}

namespace {
/// What was given to one of the encoders, and what came of it.
struct Batch {
  rt::Encoder *encoder = nullptr;
  std::vector<std::string> names;
  std::vector<Sequence> sequences;
  Vectors results;

  void add(const std::string &name, Sequence sequence) {
    names.push_back(name);
    sequences.push_back(std::move(sequence));
  }
  bool classifies() const {
    return encoder && encoder->program().task() == bundle::CLASSIFY;
  }
};

double cosine(const std::vector<float> &a, const std::vector<float> &b) {
  double product = 0, squaresA = 0, squaresB = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    product += double(a[i]) * double(b[i]);
    squaresA += double(a[i]) * double(a[i]);
    squaresB += double(b[i]) * double(b[i]);
  }
  return product / std::max(std::sqrt(squaresA * squaresB), 1e-30);
}

json number(double value) {
  return std::isfinite(value) ? json(value) : json();
}

/// The classes of a result, the likeliest first.
json classesOf(const std::vector<float> &logits, const bundle::Program &p) {
  std::vector<double> probabilities =
      rt::softmax(std::vector<double>(logits.begin(), logits.end()));
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, std::less(),
                    [&](size_t i) { return std::pair(-probabilities[i], i); });
  json classes = json::array();
  for (size_t i : order)
    classes.push_back(
        {{"label", p.labels_size() ? p.labels(int(i)) : std::to_string(i)},
         {"probability", number(probabilities[i])}});
  return classes;
}

void describe(const Batch &batch, json &results) {
  for (size_t i = 0; i < batch.names.size(); ++i) {
    json result = {{"input", batch.names[i]}};
    if (batch.classifies()) {
      result["classes"] = classesOf(batch.results[i], batch.encoder->program());
      result["logits"] = batch.results[i];
    } else {
      result["embedding"] = batch.results[i];
    }
    results.push_back(std::move(result));
  }
}

void print(const Batch &batch) {
  constexpr size_t kShown = 5;
  size_t width = 0;
  for (const std::string &name : batch.names)
    width = std::max(width, name.size());
  for (size_t i = 0; i < batch.names.size(); ++i) {
    fmt::print("{:<{}} ", batch.names[i], width);
    if (batch.classifies()) {
      json classes = classesOf(batch.results[i], batch.encoder->program());
      for (size_t c = 0; c < std::min(kShown, classes.size()); ++c)
        fmt::print(" {} {:.1f} %{}", classes[c]["label"].get<std::string>(),
                   100 * classes[c]["probability"].get<double>(),
                   c + 1 < std::min(kShown, classes.size()) ? "," : "\n");
      continue;
    }
    // Among its like: how close; alone: the vector.
    if (batch.names.size() > 1) {
      for (const auto &other : batch.results)
        fmt::print(" {:7.4f}", cosine(batch.results[i], other));
      fmt::print("\n");
      continue;
    }
    for (float value : batch.results[i])
      fmt::print(" {:.6g}", value);
    fmt::print("\n");
  }
}

/// Of two towers: for each image the probability of each text.
json matches(const Batch &images, const Batch &texts, double scale) {
  json out = json::array();
  for (const auto &image : images.results) {
    std::vector<double> logits;
    for (const auto &text : texts.results)
      logits.push_back(scale * cosine(image, text));
    out.push_back({{"logits", logits}, {"probabilities", rt::softmax(logits)}});
  }
  return out;
}
} // namespace

void cli::runEncoders(Encoders &encoders, const EncodeOptions &options) {
  Batch texts, images;
  for (const std::string &text : options.texts)
    texts.add(text, encoders.ofText(text));
  for (const std::string &path : options.images) {
    rt::MappedFile file(path);
    images.add(path, encoders.ofImage(file.bytes(), path));
  }
  for (const std::string &input : options.inputs) {
    const size_t equals = input.find('=');
    const std::string name = input.substr(0, equals);
    if (equals == input.npos || (name != "input_ids" && name != "pixel_values"))
      throw rt::Error("--input {}: expected input_ids=FILE.npy or "
                      "pixel_values=FILE.npy",
                      input);
    const std::string path = input.substr(equals + 1);
    const NpyArray array = readNpy(path);
    const bool pixels = name == "pixel_values";
    Batch &batch = pixels ? images : texts;
    for (Sequence &sequence :
         pixels ? fromPixels(array, path, encoders.image().program().image())
                : fromIds(array, path))
      batch.add(fmt::format("{}[{}]", path, batch.names.size()),
                std::move(sequence));
  }
  auto start = std::chrono::steady_clock::now();
  for (Batch *batch : {&texts, &images})
    if (!batch->sequences.empty()) {
      batch->encoder = batch == &texts ? &encoders.text() : &encoders.image();
      batch->results = batch->encoder->run(batch->sequences);
    }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  if (!options.output.empty()) {
    Vectors all = texts.results;
    all.insert(all.end(), images.results.begin(), images.results.end());
    for (const auto &row : all)
      if (row.size() != all[0].size())
        throw rt::Error("-o {}: texts and images have vectors of different "
                        "lengths; write them one at a time",
                        options.output);
    writeNpy(options.output, all);
  }
  const bool both =
      !texts.results.empty() && !images.results.empty() && !images.classifies();
  const double scale = encoders.bundle.manifest().similarity_scale();
  if (options.json) {
    json out = {{"results", json::array()}, {"seconds", seconds}};
    describe(texts, out["results"]);
    describe(images, out["results"]);
    if (both)
      out["matches"] = matches(images, texts, scale);
    fmt::print("{}\n",
               out.dump(-1, ' ', false, json::error_handler_t::replace));
    return;
  }
  if (!both) {
    print(texts);
    print(images);
    return;
  }
  const json found = matches(images, texts, scale);
  for (size_t i = 0; i < images.names.size(); ++i) {
    fmt::print("{}\n", images.names[i]);
    for (size_t t = 0; t < texts.names.size(); ++t)
      fmt::print("  {:5.1f} %  {}\n",
                 100 * found[i]["probabilities"][t].get<double>(),
                 texts.names[t]);
  }
}
