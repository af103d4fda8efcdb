//===- Npy.cpp - arrays of NumPy in files ---------------------------------===//
#include "Npy.h"

#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/MappedFile.h"

#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <regex>

using namespace isthmus;
using namespace isthmus::cli;

static constexpr std::string_view kMagic{"\x93NUMPY", 6};

/// The dictionary that describes the array, and where its values begin.
static std::string readHeader(const rt::MappedFile &file, size_t &values) {
  auto bytes = file.bytes();
  const auto *text = reinterpret_cast<const char *>(bytes.data());
  auto need = [&](bool condition) {
    if (!condition)
      throw rt::Error("{}: is not an .npy file of version 1 to 3",
                      file.path().string());
  };
  need(bytes.size() >= 12 && std::string_view(text, 6) == kMagic &&
       text[6] >= 1 && text[6] <= 3);
  uint32_t length = 0;
  const size_t start = text[6] == 1 ? 10 : 12;
  std::memcpy(&length, text + 8, start - 8);
  // Short: a long one would be deep water for std::regex.
  need(length <= bytes.size() - start && length < 4096);
  values = start + length;
  return {text + start, length};
}

NpyArray cli::readNpy(const std::string &path) {
  rt::MappedFile file(path);
  size_t at = 0;
  const std::string header = readHeader(file, at);
  static const std::regex form(
      R"(\{'descr': '[<|](f[248]|[iu][1248]|b1)', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \}\s*)");
  std::smatch match;
  if (!std::regex_match(header, match, form))
    throw rt::Error(
        "{}: holds {}; floats, integers and bool in C order are read", path,
        header.substr(0, 200));
  NpyArray array;
  uint64_t count = 1;
  const std::string shape = match[2];
  static const std::regex number("[0-9]+");
  for (std::sregex_iterator i(shape.begin(), shape.end(), number), end;
       i != end; ++i) {
    const std::string digits = i->str();
    if (digits.size() > 12 ||
        __builtin_mul_overflow(count, std::stoull(digits), &count))
      throw rt::Error("{}: impossible shape ({})", path, shape);
    array.shape.push_back(std::stoull(digits));
  }
  const std::string type = match[1];
  const uint64_t size = uint64_t(type[1] - '0');
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes) ||
      bytes != file.bytes().size() - at)
    throw rt::Error("{}: {} bytes do not hold ({}) values of {}", path,
                    file.bytes().size() - at, shape, type);
  auto read = [&]<typename Stored>(auto &out, Stored) {
    std::vector<Stored> values(count);
    std::memcpy(values.data(), file.bytes().data() + at, bytes);
    out.assign(values.begin(), values.end());
  };
  if (type == "f2")
    read(array.floats, _Float16());
  else if (type == "f4")
    read(array.floats, float());
  else if (type == "f8")
    read(array.floats, double());
  else if (type == "i1")
    read(array.integers, int8_t());
  else if (type == "u1" || type == "b1")
    read(array.integers, uint8_t());
  else if (type == "i2")
    read(array.integers, int16_t());
  else if (type == "u2")
    read(array.integers, uint16_t());
  else if (type == "i4")
    read(array.integers, int32_t());
  else if (type == "u4")
    read(array.integers, uint32_t());
  else
    read(array.integers, int64_t());
  return array;
}

void cli::writeNpy(const std::string &path,
                   std::span<const std::vector<float>> rows) {
  const int64_t shape[] = {int64_t(rows.size()),
                           rows.empty() ? 0 : int64_t(rows[0].size())};
  std::vector<float> values;
  for (const std::vector<float> &row : rows)
    values.insert(values.end(), row.begin(), row.end());
  writeNpy(path, "<f4", shape, std::as_bytes(std::span(values)));
}

void cli::writeNpy(const std::string &path, const std::string &type,
                   std::span<const int64_t> shape,
                   std::span<const std::byte> values) {
  std::string sizes;
  for (int64_t size : shape)
    sizes += fmt::format("{}, ", size);
  // As Python writes tuples: (3,) but (3, 4).
  if (shape.size() == 1)
    sizes.pop_back();
  else if (shape.size() > 1)
    sizes.resize(sizes.size() - 2);
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
                  type, sizes);
  // Values begin at a multiple of 64 bytes.
  header.resize((header.size() + 10 + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  const auto length = uint16_t(header.size());
  file << kMagic << '\1' << '\0';
  file.write(reinterpret_cast<const char *>(&length), 2);
  file << header;
  file.write(reinterpret_cast<const char *>(values.data()),
             std::streamsize(values.size()));
  if (!file.flush())
    throw rt::Error("{}: cannot write", path);
}
