//===- Completion.h - what a shell may offer next ---------------*- C++ -*-===//
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace isthmus::cli {

/// The words that may stand where the last of `words` is being typed: the
/// subcommands, or the options if it starts with a dash. `words` are those
/// after the program's name; options among them are passed over. Files are the
/// shell's business.
inline std::vector<std::string>
complete(const CLI::App &app, const std::vector<std::string> &words) {
  const CLI::App *current = &app;
  for (size_t i = 0; i + 1 < words.size(); ++i)
    for (const CLI::App *sub :
         current->get_subcommands([](const CLI::App *) { return true; }))
      if (sub->get_name() == words[i]) {
        current = sub;
        break;
      }
  const std::string typed = words.empty() ? "" : words.back();
  std::vector<std::string> found;
  auto offer = [&](const std::string &word) {
    if (word.starts_with(typed))
      found.push_back(word);
  };
  if (!typed.starts_with("-"))
    for (const CLI::App *sub :
         current->get_subcommands([](const CLI::App *) { return true; }))
      if (!sub->get_name().empty() && !sub->get_group().empty())
        offer(sub->get_name());
  if (typed.starts_with("-"))
    for (const CLI::Option *option : current->get_options())
      for (const std::string &name : option->get_lnames())
        offer("--" + name);
  return found;
}

/// Prints what `complete` finds, a word a line.
inline int printCompletions(const CLI::App &app,
                            const std::vector<std::string> &words) {
  for (const std::string &word : complete(app, words))
    std::cout << word << "\n";
  return 0;
}

} // namespace isthmus::cli
