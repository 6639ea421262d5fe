#pragma once
#include "mezzotint/formats/driver.h"

namespace mezzotint::convert {

/// Brings scales that were chosen for a changed weight back to the stored ones, as far as the format wants that
/// (formats::ScaleUpdate). Of all float32 parameters, or of those that belong to `rows` alone, where a format stores
/// one after another for its blocks of rows. Scales that are not positive numbers are left as they were chosen.
void follow_scales(const formats::Layout& layout, const formats::Parameters& stored, formats::Parameters& chosen);
void follow_scales(const formats::Layout& layout, const formats::Parameters& stored, const formats::RowRange& rows,
                   formats::Parameters& chosen);

/// One scale.
float follow_scale(formats::ScaleUpdate update, float stored, float chosen);

}  // namespace mezzotint::convert
