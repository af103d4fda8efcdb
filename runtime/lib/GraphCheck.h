//===- GraphCheck.h - checks the graph of a manifest ------------*- C++ -*-===//
#pragma once

#include "bundle.pb.h"

namespace isthmus::rt {

/// Null if every number in the graph is in range and every constant as large as
/// its type says, else what is wrong.
const char *findGraphError(const bundle::Manifest &manifest,
                           const bundle::Graph &graph);

} // namespace isthmus::rt
