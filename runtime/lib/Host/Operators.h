//===- Operators.h - the tables of host operators, by subject ---*- C++ -*-===//
#pragma once

#include "isthmus/runtime/HostOperators.h"

#include <span>
#include <utility>

namespace isthmus::rt {

using HostTable = std::span<const std::pair<std::string_view, HostOperator>>;

HostTable controlFlowOperators();
HostTable sequenceOperators();
HostTable textOperators();
HostTable selectionOperators();

} // namespace isthmus::rt
