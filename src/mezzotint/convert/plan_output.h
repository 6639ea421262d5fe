#pragma once
#include "mezzotint/convert/plan.h"

/// From decisions to bytes (room-internal): the second half of make_plan.
namespace mezzotint::convert {

/// Given rows with action, source, layer and layout, fills in markers, the list of output tensors, the header, and all
/// sizes. `carried` are layers outside this program's formats whose markers stay in the header.
void lay_out_output(Plan& plan, const checkpoint::Model& model,
                    const std::vector<std::pair<std::string, std::string>>& carried);

/// Peak memory, bits per weight and time from the finished rows.
void estimate(Plan& plan, const checkpoint::Model& model);

}  // namespace mezzotint::convert
