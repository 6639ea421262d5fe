#include "mezzotint/kernel/isa_probe.isa.cpp"  // the same probe under other flags
