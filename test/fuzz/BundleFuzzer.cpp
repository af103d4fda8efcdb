// libFuzzer target: a manifest that parses is checked before anything uses it;
// what passes the checks must link without fault.
#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Linker.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  isthmus::bundle::Manifest manifest;
  if (!manifest.ParseFromArray(data, int(size)))
    return 0;
  try {
    isthmus::rt::checkManifest("fuzz", manifest, 1 << 30);
    for (const auto &plan : manifest.plans())
      for (int stage = 0; stage < plan.stages_size(); ++stage)
        isthmus::rt::linkStage(manifest, plan, stage, {});
  } catch (const isthmus::rt::Error &) {
  }
  return 0;
}
