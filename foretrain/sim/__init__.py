"""What happens, and when: plan, lowering, cost, engine, prediction."""
