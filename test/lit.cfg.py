import os
import lit.formats

config.name = "isthmus"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.build_root, "test")
config.environment["PATH"] = os.pathsep.join(
    [os.path.join(config.build_root, "bin"), "/usr/lib/llvm-22/bin", config.environment["PATH"]])
config.environment["FILECHECK_OPTS"] = "-dump-input=never"
config.substitutions.append(("%build", config.build_root))
