"""Between the person and the dataset: what people said becomes what trains. No torch here."""
