//===- Tune.h - the 'isthmus tune' command ----------------------*- C++ -*-===//
#pragma once

namespace isthmus::cli {

/// Runs the command; `argv[0]` stands for its name. Throws rt::Error.
int tune(int argc, char **argv);

} // namespace isthmus::cli
