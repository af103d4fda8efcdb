//===- Commands.h - the commands of 'isthmus' -------------------*- C++ -*-===//
#pragma once

#include <CLI/CLI.hpp>

namespace isthmus::cli {

// Each adds a subcommand; its callback does the work and throws rt::Error.
void addRun(CLI::App &app);
void addChat(CLI::App &app);
void addInspect(CLI::App &app);
void addTrust(CLI::App &app);
void addEval(CLI::App &app);
void addBench(CLI::App &app);
void addLogits(CLI::App &app);
void addTokenize(CLI::App &app);
void addServe(CLI::App &app);
void addWorker(CLI::App &app);
void addCluster(CLI::App &app);

} // namespace isthmus::cli
