//===- CpuFeatures.h - what this processor can run --------------*- C++ -*-===//
#pragma once

#include <string>
#include <string_view>

namespace isthmus::rt {

/// True if this process runs on the architecture of `triple` and the processor
/// has all `flags` (space-separated, as in /proc/cpuinfo). If not, `missing`
/// (when given) receives what is absent.
bool cpuSupports(std::string_view triple, std::string_view flags,
                 std::string *missing = nullptr);

/// Asks the system for those of `flags` that a process may use only after it
/// asked. Returns false if the system refuses.
bool requestCpuFeatures(std::string_view flags);

} // namespace isthmus::rt
