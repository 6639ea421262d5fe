#pragma once
#include "mezzotint/convert/plan.h"

/// A step of make_plan (room-internal).
namespace mezzotint::convert {

/// Gives every row that is encoded its Method, and lets rows with statistics correct their layer's bias. Throws Error
/// "bad-option" for unknown optimizers and for those that do not go with stochastic rounding.
void choose_methods(Plan& plan, const checkpoint::Model& model);

/// Seconds of one core that a row takes, from its bytes and the operations of its method.
struct RowWork {
  double bytes = 0;    ///< reading, choosing scales, encoding, writing
  double moments = 0;  ///< the Hessian
  double factor = 0;
  double rounding = 0;  ///< with feedback
  double total() const { return bytes + moments + factor + rounding; }
};
RowWork row_work(const PlanRow& row);
/// The same of all rows.
double total_work(const Plan& plan);

}  // namespace mezzotint::convert
