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

// -----

sched.template @t {
^bb0(%y: !sched.buffer<128, tokens>):
  // expected-error@+1 {{'wait' and 'wait_large' exclude one another}}
  sched.launch @k(%y) tiles 1 over tokens wait wait_large : !sched.buffer<128, tokens>
}

// -----

sched.template @t {
^bb0(%y: !sched.buffer<128, tokens>):
  // expected-error@+1 {{a tile needs at least one row}}
  sched.launch @k(%y) tiles 1 over tokens {rows_per_tile = 0 : i64} : !sched.buffer<128, tokens>
}
