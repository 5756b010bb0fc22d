-- What the workshop offers; run.sh makes data/services.db of it.
create table services (id text primary key, question text not null, answer text not null, price numeric);
insert into services values
  ('S1', 'Do you sharpen knives?', 'Yes, for 6 euro a knife; it takes two days.', 6.00),
  ('S2', 'Können Sie einen Namen eingravieren?', 'Ja, bis zu zwölf Buchstaben, für 9 Euro.', 9.00),
  ('S3', 'Réparez-vous les manches en bois ?', 'Oui, comptez une semaine et 15 euros.', 15.00),
  ('S4', '¿Dan cursos de talla de madera?', 'Sí, el primer sábado de cada mes, por 45 euros.', 45.00),
  ('S5', 'Fate confezioni regalo?', 'Sì, gratis per gli ordini oltre 60 euro.', 0.00),
  ('S6', 'Oliën jullie snijplanken opnieuw?', 'Ja, voor 8 euro, klaar terwijl u wacht.', 8.00);
