//===- HostGraphs.h - runs graphs while compiling ---------------*- C++ -*-===//
#pragma once

#include "isthmus/Conversion/GraphToFM.h"

namespace isthmus {

/// Compiles graphs for this machine, each to a bundle in a temporary file that
/// goes with it, and runs them here.
GraphCompiler hostGraphCompiler();

} // namespace isthmus
