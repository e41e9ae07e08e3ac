// What every training command says of its model in run.json and report.html.
#pragma once
#include "formats/model_config.h"
#include "train/report.h"

namespace wels {

InfoSection model_section(const ModelConfig& cfg);

}  // namespace wels
