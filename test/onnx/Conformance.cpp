//===- Conformance.cpp - runs the ONNX backend's test cases ---------------===//
//
// usage: onnx-conformance FOLDER [--jobs N, 0: all in this process] [--filter
// TEXT] [--mode static|dynamic]
//
// Each folder within FOLDER is a case as the onnx package writes them:
// model.onnx and test_data_set_*/{input,output}_*.pb. A case is compiled,
// loaded and run in a process of its own, with the model's sizes and,
// "dynamic", with all of them unknown. Prints a line of JSON a case.
//
//===----------------------------------------------------------------------===//
#include "isthmus/Driver/Compile.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/GraphExecutor.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Signals.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <onnx/onnx-data.pb.h>
#include <onnx/onnx_pb.h>
#include <optional>
#include <sys/wait.h>
#include <unistd.h>

using namespace isthmus;
using rt::DataType;
using rt::Error;
using rt::Tensor;
using rt::Value;
namespace fs = std::filesystem;

/// What the package's own runner allows.
static constexpr double kRelative = 1e-3, kAbsolute = 1e-7;

//===----------------------------------------------------------------------===//
// Values in files
//===----------------------------------------------------------------------===//

template <typename Proto> static Proto parse(const fs::path &path) {
  std::ifstream file(path, std::ios::binary);
  Proto proto;
  if (!proto.ParseFromIstream(&file))
    throw Error("{}: cannot be parsed", path.string());
  return proto;
}

static Value toValue(const onnx::TensorProto &proto) {
  Tensor tensor = Tensor::allocate(DataType(proto.data_type()),
                                   {proto.dims().begin(), proto.dims().end()});
  if (tensor.type == DataType::String) {
    tensor.texts->assign(proto.string_data().begin(),
                         proto.string_data().end());
  } else {
    auto bytes = import::tensorBytes(&proto);
    std::memcpy(tensor.data.get(), bytes.data(), bytes.size());
  }
  return tensor;
}

static Value toValue(const onnx::SequenceProto &proto) {
  std::vector<Value> items;
  for (const auto &tensor : proto.tensor_values())
    items.push_back(toValue(tensor));
  return Value::Sequence(std::make_shared<const std::vector<Value>>(items));
}

static Value toValue(const onnx::OptionalProto &proto) {
  if (proto.has_tensor_value())
    return toValue(proto.tensor_value());
  if (proto.has_sequence_value())
    return toValue(proto.sequence_value());
  return {};
}

static Value read(const fs::path &path, const onnx::TypeProto &type) {
  if (type.has_sequence_type())
    return toValue(parse<onnx::SequenceProto>(path));
  if (type.has_optional_type())
    return toValue(parse<onnx::OptionalProto>(path));
  return toValue(parse<onnx::TensorProto>(path));
}

//===----------------------------------------------------------------------===//
// Comparing
//===----------------------------------------------------------------------===//

static float half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  float value = exponent == 0 ? std::ldexp(float(mantissa), -24)
                : exponent == 31
                    ? (mantissa ? NAN : INFINITY)
                    : std::ldexp(float(mantissa + 1024), exponent - 25);
  return bits >> 15 ? -value : value;
}

/// A float of eight bits or less, by the table of its codes.
static float small(DataType type, uint8_t code) {
  auto decode = [&](int e, int m, int bias, bool infinite, bool fnuz,
                    bool nan) -> float {
    const int exponent = code >> m & ((1 << e) - 1),
              mantissa = code & ((1 << m) - 1);
    const bool negative = code >> (e + m) & 1;
    const bool top = exponent == (1 << e) - 1;
    if (fnuz && code == 0x80)
      return NAN;
    if (infinite && top)
      return mantissa ? NAN : (negative ? -INFINITY : INFINITY);
    if (nan && top && mantissa == (1 << m) - 1)
      return NAN;
    const float value =
        exponent ? std::ldexp(float((1 << m) + mantissa), exponent - bias - m)
                 : std::ldexp(float(mantissa), 1 - bias - m);
    return negative ? -value : value;
  };
  switch (type) {
  case DataType::F8E4M3FN:
    return decode(4, 3, 7, false, false, true);
  case DataType::F8E4M3FNUZ:
    return decode(4, 3, 8, false, true, false);
  case DataType::F8E5M2:
    return decode(5, 2, 15, true, false, false);
  case DataType::F8E5M2FNUZ:
    return decode(5, 2, 16, false, true, false);
  case DataType::F8E8M0:
    return code == 255 ? NAN : std::ldexp(1.0f, code - 127);
  default:
    return decode(2, 1, 1, false, false, false);
  }
}

/// Element i as a number, if the type is one of floats.
static std::optional<double> floatAt(const Tensor &tensor, int64_t i) {
  switch (tensor.type) {
  case DataType::F32:
    return tensor.as<float>()[i];
  case DataType::F64:
    return tensor.as<double>()[i];
  case DataType::F16:
    return half(tensor.as<uint16_t>()[i]);
  case DataType::BF16: {
    const uint32_t bits = uint32_t(tensor.as<uint16_t>()[i]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  case DataType::F8E4M3FN:
  case DataType::F8E4M3FNUZ:
  case DataType::F8E5M2:
  case DataType::F8E5M2FNUZ:
  case DataType::F8E8M0:
  case DataType::F4E2M1:
    return small(tensor.type, tensor.as<uint8_t>()[i]);
  default:
    return std::nullopt;
  }
}

static std::string compare(const Tensor &got, const Tensor &wanted) {
  if (got.type != wanted.type)
    return fmt::format("type {} instead of {}", nameOf(got.type),
                       nameOf(wanted.type));
  if (got.sizes != wanted.sizes)
    return fmt::format("sizes [{}] instead of [{}]", fmt::join(got.sizes, ","),
                       fmt::join(wanted.sizes, ","));
  for (int64_t i = 0; i < wanted.count(); ++i) {
    if (got.type == DataType::String) {
      if ((*got.texts)[size_t(i)] != (*wanted.texts)[size_t(i)])
        return fmt::format("'{}' instead of '{}' at {}",
                           (*got.texts)[size_t(i)], (*wanted.texts)[size_t(i)],
                           i);
      continue;
    }
    if (auto b = floatAt(wanted, i)) {
      const double a = *floatAt(got, i);
      if (a == *b || (std::isnan(a) && std::isnan(*b)) ||
          std::fabs(a - *b) <= kAbsolute + kRelative * std::fabs(*b))
        continue;
      return fmt::format("{} instead of {} at {}", a, *b, i);
    }
    const size_t bytes = bytesOf(got.type);
    if (std::memcmp(got.data.get() + size_t(i) * bytes,
                    wanted.data.get() + size_t(i) * bytes, bytes) != 0)
      return fmt::format("another integer at {}", i);
  }
  return {};
}

static std::string compare(const Value &got, const Value &wanted) {
  if (wanted.empty() || got.empty())
    return wanted.empty() == got.empty() ? "" : "an optional is (not) empty";
  if (wanted.tensor())
    return got.tensor() ? compare(*got.tensor(), *wanted.tensor())
                        : "a sequence instead of a tensor";
  const auto &a = got.needSequence(), &b = wanted.needSequence();
  if (a.size() != b.size())
    return fmt::format("{} items instead of {}", a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    if (std::string text = compare(a[i], b[i]); !text.empty())
      return fmt::format("item {}: {}", i, text);
  return {};
}

//===----------------------------------------------------------------------===//
// Cases
//===----------------------------------------------------------------------===//

/// Empty if the case passes.
static std::string runCase(const fs::path &folder, bool dynamic,
                           const fs::path &bundlePath) {
  const auto types = parse<onnx::ModelProto>(folder / "model.onnx").graph();
  import::OnnxOptions read;
  read.dynamicSizes = dynamic;
  auto model = import::readOnnx(folder / "model.onnx", read);
  compile(model, hostTopology(), {}, bundlePath);
  rt::Bundle bundle(bundlePath);
  rt::KernelLibrary kernels(bundle);
  rt::ThreadPool pool(1);
  rt::GraphExecutor executor(bundle, bundle.manifest().programs(0), kernels,
                             pool);
  for (int set = 0;; ++set) {
    const fs::path data = folder / fmt::format("test_data_set_{}", set);
    if (!fs::exists(data))
      return set ? "" : "no data";
    std::vector<Value> inputs;
    for (int i = 0; i < types.input_size(); ++i)
      inputs.push_back(
          ::read(data / fmt::format("input_{}.pb", i), types.input(i).type()));
    auto results = executor.run(inputs);
    for (int i = 0; i < types.output_size(); ++i) {
      const Value wanted =
          ::read(data / fmt::format("output_{}.pb", i), types.output(i).type());
      if (std::string text = compare(results[size_t(i)], wanted); !text.empty())
        return fmt::format("output '{}': {}", types.output(i).name(), text);
    }
  }
}

namespace {
struct Job {
  std::string name, mode;
  int pipe;
};
} // namespace

static pid_t start(const fs::path &folder, const std::string &mode,
                   const fs::path &scratch, int &pipeEnd) {
  int ends[2];
  if (pipe(ends) != 0)
    throw Error("no pipe");
  const pid_t child = fork();
  if (child != 0) {
    close(ends[1]);
    pipeEnd = ends[0];
    return child;
  }
  close(ends[0]);
  alarm(60);
  std::string result;
  const fs::path bundle = scratch / fmt::format("{}.isth", getpid());
  try {
    result = runCase(folder, mode == "dynamic", bundle);
  } catch (const std::exception &error) {
    result = error.what();
  }
  std::error_code ignored;
  fs::remove(bundle, ignored);
  result = result.substr(0, 2000);
  const ssize_t written = write(ends[1], result.data(), result.size());
  _exit(written == ssize_t(result.size()) && result.empty() ? 0 : 1);
}

int main(int argc, char **argv) {
  fs::path cases = argc > 1 ? argv[1] : ".";
  size_t jobs = 2;
  std::string filter;
  std::vector<std::string> modes = {"static", "dynamic"};
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--jobs")
      jobs = std::stoul(argv[i + 1]);
    else if (option == "--filter")
      filter = argv[i + 1];
    else if (option == "--mode")
      modes = {argv[i + 1]};
  }
  std::vector<std::pair<fs::path, std::string>> runs;
  for (const auto &entry : fs::directory_iterator(cases))
    if (entry.path().filename().string().find(filter) != std::string::npos)
      for (const std::string &mode : modes)
        runs.emplace_back(entry.path(), mode);
  std::ranges::sort(runs);
  std::string scratchName =
      (fs::temp_directory_path() / "onnx-XXXXXX").string();
  if (!mkdtemp(scratchName.data()))
    return 2;
  // One key for all bundles, not the user's.
  setenv("ISTHMUS_HOME", scratchName.c_str(), 1);
  std::map<pid_t, Job> running;
  auto finish = [&] {
    int status = 0;
    const pid_t child = wait(&status);
    const Job job = running.at(child);
    running.erase(child);
    std::string message(2048, '\0');
    const ssize_t length = read(job.pipe, message.data(), message.size());
    close(job.pipe);
    message.resize(size_t(std::max<ssize_t>(length, 0)));
    if (WIFSIGNALED(status))
      message = fmt::format("killed by signal {}", WTERMSIG(status));
    fmt::print("{}\n", nlohmann::json({{"case", job.name},
                                       {"mode", job.mode},
                                       {"passed", status == 0},
                                       {"message", message}})
                           .dump(-1, ' ', false,
                                 nlohmann::json::error_handler_t::replace));
  };
  if (jobs == 0)
    llvm::sys::PrintStackTraceOnErrorSignal(argv[0]);
  for (const auto &[folder, mode] : runs) {
    if (jobs == 0) { // in this process, for a debugger
      fmt::print("{} {}: {}\n", folder.filename().string(), mode,
                 runCase(folder, mode == "dynamic",
                         fs::path(scratchName) / "case.isth"));
      continue;
    }
    if (running.size() == jobs)
      finish();
    fflush(stdout);
    int pipeEnd = -1;
    const pid_t child = start(folder, mode, scratchName, pipeEnd);
    running[child] = {folder.filename().string(), mode, pipeEnd};
  }
  while (!running.empty())
    finish();
  fs::remove_all(scratchName);
}
