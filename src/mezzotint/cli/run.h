#pragma once

namespace mezzotint::cli {

/// Parses the command line, does the work, reports errors on stderr, returns the exit code.
int run(int argc, char** argv);

}  // namespace mezzotint::cli
