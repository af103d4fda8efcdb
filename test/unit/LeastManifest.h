// The least that a bundle may hold: a program of one call, a device, a plan.
#pragma once

#include "isthmus/runtime/Bundle.h"

inline isthmus::bundle::Manifest leastManifest() {
  isthmus::bundle::Manifest m;
  auto *buffer = m.add_templates()->add_buffers();
  buffer->set_row_bytes(64);
  buffer->set_rows(isthmus::bundle::OUTPUTS);
  auto *program = m.add_programs();
  program->set_context_length(8);
  program->set_vocab_size(16);
  program->add_calls()->set_state(-1);
  m.add_devices();
  m.add_plans()->add_stages()->set_calls(1);
  return m;
}
