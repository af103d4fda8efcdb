//===- Registry.cpp - finds host operators --------------------------------===//
#include "Operators.h"

#include "isthmus/runtime/Error.h"

using namespace isthmus;
using namespace isthmus::rt;

const Tensor &HostCall::tensor(size_t input) const {
  if (!has(input))
    throw Error("input {} is missing", input);
  return inputs[input].needTensor();
}

const bundle::GraphAttribute *HostCall::attribute(std::string_view name) const {
  for (const auto &attribute : node.attributes())
    if (attribute.name() == name)
      return &attribute;
  return nullptr;
}

int64_t HostCall::integer(std::string_view name, int64_t otherwise) const {
  const auto *found = attribute(name);
  return found && found->integers_size() ? found->integers(0) : otherwise;
}

std::string HostCall::text(std::string_view name, std::string otherwise) const {
  const auto *found = attribute(name);
  return found && found->texts_size() ? found->texts(0) : otherwise;
}

HostOperator isthmus::rt::findHostOperator(std::string_view op) {
  for (HostTable table : {controlFlowOperators(), sequenceOperators(),
                          textOperators(), selectionOperators()})
    for (const auto &[name, function] : table)
      if (name == op)
        return function;
  return nullptr;
}
