//===- TextStream.cpp - tokens to text, with stop strings -----------------===//
#include "isthmus/runtime/TextStream.h"

#include <algorithm>

using namespace isthmus::rt;

/// Bytes at the end of `text` that begin a character which is not complete.
static size_t incompleteTail(const std::string &text) {
  for (size_t back = 1; back <= std::min<size_t>(4, text.size()); ++back) {
    auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80)
      continue; // inside a character
    size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

std::string TextStream::push(int32_t token) {
  if (found)
    return "";
  pending += tokenizer.decode(token);
  return release(false);
}

std::string TextStream::finish() { return found ? "" : release(true); }

std::string TextStream::release(bool all) {
  size_t first = std::string::npos;
  for (const std::string &text : stop)
    if (!text.empty())
      first = std::min(first, pending.find(text));
  if (first != std::string::npos) {
    found = true;
    std::string out = pending.substr(0, first);
    pending.clear();
    return out;
  }
  size_t keep = 0;
  if (!all) {
    keep = incompleteTail(pending);
    for (const std::string &text : stop)
      for (size_t n =
               std::min(text.empty() ? 0 : text.size() - 1, pending.size());
           n > keep; --n)
        if (pending.compare(pending.size() - n, n, text, 0, n) == 0) {
          keep = n;
          break;
        }
  }
  std::string out = pending.substr(0, pending.size() - keep);
  pending.erase(0, out.size());
  return out;
}
