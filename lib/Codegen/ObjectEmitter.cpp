//===- ObjectEmitter.cpp - from a module of kernels to an ELF library -----===//
#include "isthmus/Codegen/ObjectEmitter.h"

#include "lld/Common/Driver.h"
#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

LLD_HAS_DRIVER(elf)

using namespace mlir;
using namespace isthmus;

void isthmus::buildKernelLowering(OpPassManager &passes) {
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertVectorToLLVMPass());
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createConvertFuncToLLVMPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
}

static std::unique_ptr<llvm::TargetMachine>
createMachine(const TargetDescription &target, std::string &error) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeAArch64TargetInfo();
  LLVMInitializeAArch64Target();
  LLVMInitializeAArch64TargetMC();
  LLVMInitializeAArch64AsmPrinter();
  llvm::Triple triple(target.triple);
  const llvm::Target *found = llvm::TargetRegistry::lookupTarget(triple, error);
  if (!found)
    return nullptr;
  llvm::TargetOptions options;
  // Contraction is written out as fma where the contract wants it.
  options.AllowFPOpFusion = llvm::FPOpFusion::Strict;
  return std::unique_ptr<llvm::TargetMachine>(found->createTargetMachine(
      triple, target.cpu, target.features, options, llvm::Reloc::PIC_,
      std::nullopt, llvm::CodeGenOptLevel::Aggressive));
}

static void optimize(llvm::Module &module, llvm::TargetMachine &machine,
                     bool vectorize) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager sccs;
  llvm::ModuleAnalysisManager modules;
  llvm::PipelineTuningOptions tuning;
  // Most kernels are vectorised by construction.
  tuning.LoopVectorization = vectorize;
  tuning.SLPVectorization = false;
  llvm::PassBuilder builder(&machine, tuning);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(sccs);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, sccs, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O2)
      .run(module, modules);
}

/// Links one object to a shared object. lld works on files only: they live in a
/// fresh temporary folder for the time of the call.
static LogicalResult link(ModuleOp kernels, llvm::StringRef object,
                          std::string *library) {
  llvm::SmallString<128> folder;
  if (auto error = llvm::sys::fs::createUniqueDirectory("isthmus-link", folder))
    return kernels.emitError("cannot create a temporary folder: ")
           << error.message();
  llvm::SmallString<128> input = folder, output = folder;
  input += "/kernels.o";
  output += "/kernels.so";
  LogicalResult result = success();
  {
    std::error_code error;
    llvm::raw_fd_ostream file(input, error);
    file << object;
    file.close();
    if (error || file.has_error())
      result = kernels.emitError("cannot write ") << input.str();
  }
  std::string messages;
  llvm::raw_string_ostream stream(messages);
  const char *arguments[] = {"ld.lld",          "-shared",     "--no-undefined",
                             "--build-id=none", "-z",          "noexecstack",
                             "--strip-all",     input.c_str(), "-o",
                             output.c_str()};
  lld::DriverDef driver = {lld::Gnu, &lld::elf::link};
  if (succeeded(result) &&
      lld::lldMain(arguments, stream, stream, {driver}).retCode != 0)
    result = kernels.emitError("linking kernels failed: ") << messages;
  if (succeeded(result)) {
    auto buffer = llvm::MemoryBuffer::getFile(output);
    if (buffer)
      *library = (*buffer)->getBuffer().str();
    else
      result = kernels.emitError("cannot read the linked kernels");
  }
  llvm::sys::fs::remove_directories(folder);
  return result;
}

LogicalResult isthmus::emitKernelLibrary(ModuleOp kernels,
                                         const TargetDescription &target,
                                         std::string *library,
                                         std::string *assembly,
                                         bool vectorize) {
  OwningOpRef<ModuleOp> clone(cast<ModuleOp>(kernels->clone()));
  (*clone)->removeAttr(SymbolTable::getSymbolAttrName());
  PassManager passes(clone->getContext(), ModuleOp::getOperationName());
  buildKernelLowering(passes);
  if (failed(passes.run(*clone)))
    return kernels.emitError("kernels could not be lowered to LLVM");

  registerBuiltinDialectTranslation(*clone->getContext());
  registerLLVMDialectTranslation(*clone->getContext());
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> module =
      translateModuleToLLVMIR(*clone, context, "kernels");
  if (!module)
    return kernels.emitError("kernels could not be translated to LLVM IR");

  std::string error;
  std::unique_ptr<llvm::TargetMachine> machine = createMachine(target, error);
  if (!machine)
    return kernels.emitError("no code generator for ")
           << target.triple << ": " << error;
  module->setDataLayout(machine->createDataLayout());
  module->setTargetTriple(llvm::Triple(target.triple));
  // Kernels link against nothing: no loop may become a call to memset.
  for (llvm::Function &function : *module)
    function.addFnAttr("no-builtins");
  optimize(*module, *machine, vectorize);

  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream stream(bytes);
  llvm::legacy::PassManager codegen;
  auto type = assembly ? llvm::CodeGenFileType::AssemblyFile
                       : llvm::CodeGenFileType::ObjectFile;
  if (machine->addPassesToEmitFile(codegen, stream, nullptr, type))
    return kernels.emitError("the target cannot emit object files");
  codegen.run(*module);
  if (assembly) {
    assembly->assign(bytes.begin(), bytes.end());
    return success();
  }
  return link(kernels, llvm::StringRef(bytes.data(), bytes.size()), library);
}
