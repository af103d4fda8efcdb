// RUN: isthmus-opt %s --split-input-file --verify-diagnostics

sched.template @t {
^bb0(%y: !sched.buffer<128, tokens>):
  // expected-error@+1 {{needs at least one tile}}
  sched.launch @k(%y) tiles 0 over tokens : !sched.buffer<128, tokens>
}

// -----

sched.template @t {
^bb0(%y: i32):
  // expected-error@+1 {{operand must be a buffer, a weight or a state, got 'i32'}}
  sched.launch @k(%y) tiles 1 over tokens : i32
}

// -----

sched.template @t {
  // expected-error@+1 {{needs a positive number of bytes a row}}
  %0 = sched.buffer : !sched.buffer<0, tokens>
}
