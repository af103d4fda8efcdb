// RUN: isthmus-opt %s --split-input-file --verify-diagnostics

topo.topology @t {
  // expected-error@+1 {{memory must be positive}}
  topo.device @a memory 0 bandwidth 1.0 ops 1.0 target "host"
}

// -----

topo.topology @t {
  topo.device @a memory 1 bandwidth 1.0 ops 1.0 target "host"
  // expected-error@+1 {{no topo.device named 'b'}}
  topo.link @a, @b latency 0.0 bandwidth 1.0
}

// -----

topo.topology @t {
  topo.device @a memory 1 bandwidth 1.0 ops 1.0 target "host"
  // expected-error@+1 {{joins a device to itself}}
  topo.link @a, @a latency 0.0 bandwidth 1.0
}
