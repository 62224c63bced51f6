"""Networks: model, training and prediction. The only room of core that imports torch."""
