#pragma once
#include <nlohmann/json_fwd.hpp>

#include "mezzotint/convert/fidelity/fidelity.h"

/// What `compare --lora` prints.
namespace mezzotint::cli {

void print_fidelity(const convert::Fidelity& fidelity, size_t top);
nlohmann::ordered_json fidelity_json(const convert::Fidelity& fidelity);

}  // namespace mezzotint::cli
