#pragma once
#include <string>

#include "mezzotint/convert/plan.h"

namespace mezzotint::cli {

/// What a plan will do, for people: architecture, sizes, time, and the rows grouped by decision (or every row).
std::string plan_text(const convert::Plan& plan, bool every_row);

}  // namespace mezzotint::cli
