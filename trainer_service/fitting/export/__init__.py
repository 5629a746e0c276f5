"""From float networks to exact integers: calibration, quantisation, marginals, temperature."""
