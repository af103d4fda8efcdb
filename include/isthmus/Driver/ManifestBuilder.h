//===- ManifestBuilder.h - IR to the bundle's manifest ----------*- C++ -*-===//
#pragma once

#include "bundle.pb.h"
#include "isthmus/Dialect/Dist/IR/Dist.h"
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/Sched/IR/Sched.h"

#include "mlir/IR/BuiltinOps.h"

namespace isthmus {

/// Translates one template; the two forms say the same thing.
void translateTemplate(sched::TemplateOp op, bundle::Template &out);

/// Adds templates, programs and, from the stages that dist-split-stages made,
/// the plan of a module after convert-fm-to-sched. Weights and devices must be
/// in `manifest` already. Fails with a diagnostic.
mlir::LogicalResult translateModule(mlir::ModuleOp module,
                                    bundle::Manifest &manifest);

} // namespace isthmus
